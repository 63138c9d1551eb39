export { DoorClient } from "./client.ts";
export type { CompositionReply } from "./client.ts";
export { openDoor } from "./server.ts";
export type { Door, DoorParts } from "./server.ts";
export { hostStatusSchema } from "./wire.ts";
export type { HostStatus, JobLine, Measurements } from "./wire.ts";
