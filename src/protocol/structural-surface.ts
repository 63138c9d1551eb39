import { z } from "zod";

/** What a worker or adapter offers, without its schemas: compared for drift and for adapters. */
export const surfaceMethodSchema = z.object({
  name: z.string(),
  signature: z.string().default(""),
  params: z.array(z.string()).default([]),
});
export const structuralSurfaceSchema = z.object({
  methods: z.array(surfaceMethodSchema),
  properties: z.array(z.string()),
  attributes: z.record(z.string(), z.string()).or(z.array(z.unknown())).default({}),
});
export type StructuralSurface = z.output<typeof structuralSurfaceSchema>;
