import { serve } from "cjm-substrate/worker";
import { capability } from "./capability.ts";

await serve(capability);
