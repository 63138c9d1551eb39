import { serve } from "cjm-substrate/worker";
import { sandbox } from "./capability.ts";

await serve(sandbox);
