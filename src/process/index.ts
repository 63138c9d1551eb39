export { cagedCommand, probeCage } from "./cage.ts";
export type { CageProbe } from "./cage.ts";
export { candidatePlaces, cgroupPlace, WorkerCgroup } from "./cgroup.ts";
export type { CgroupPlace, CgroupSearch } from "./cgroup.ts";
export type { ActiveFrame } from "./control-stream.ts";
export { buildWorkerEnvironment } from "./environment.ts";
export {
  identify,
  isAlive,
  killExactly,
  processesWithVariable,
  processTree,
} from "./process-table.ts";
export type { ProcessIdentity } from "./process-table.ts";
export {
  dataDirIdentity,
  HOST_SOCKET,
  prepareRunFolder,
  removeRunFolder,
  runFolderPath,
  socketPath,
  sweepRunFolders,
} from "./run-folder.ts";
export { endSessionProcesses, SESSION_VARIABLE, SessionNames } from "./session.ts";
export { deathError, WorkerConnection } from "./worker-connection.ts";
export type { Answer, CallOptions } from "./worker-connection.ts";
export { CONTROL_FD, describeExit, WorkerProcess } from "./worker-process.ts";
export type { WorkerExit, WorkerSink, WorkerSpec } from "./worker-process.ts";
