import { serve } from "cjm-substrate/worker";
import { gpuMonitor } from "./capability.ts";

// The cage of this worker is its process group, so its parent is the host.
await serve(gpuMonitor(process.ppid));
