export { DoorClient } from "./client.ts";
export type { CompositionReply } from "./client.ts";
export { openDoor } from "./server.ts";
export type { Door, DoorParts } from "./server.ts";
export type { HostStatus, JobLine } from "./wire.ts";
