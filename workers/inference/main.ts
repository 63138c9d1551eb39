import { serve } from "cjm-substrate/worker";
import { createCapability } from "./capability.ts";

await serve(createCapability());
