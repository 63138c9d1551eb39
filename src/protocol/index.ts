export * from "./body-scanner.ts";
export * from "./frames.ts";
export * from "./json-schema.ts";
export * from "./limits.ts";
export * from "./manifest.ts";
export * from "./references.ts";
export * from "./schema-places.ts";
export * from "./wire.ts";
