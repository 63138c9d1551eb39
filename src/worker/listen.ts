import { unlinkSync } from "node:fs";
import { createServer, type RequestListener, type Server } from "node:http";
import { CjmError } from "../errors/index.ts";

export interface Listening {
  /** As the host reaches it: `unix:<path>` or `tcp:127.0.0.1:<port>`. */
  readonly address: string;
  readonly port: number | undefined;
  close(): void;
}

/** Longest path the kernel takes for a Unix socket, its final zero byte not counted. */
const MAX_SOCKET_PATH_BYTES = 103;

/**
 * Listens where `CJM_LISTEN` says: `unix:<path>`, or `tcp:127.0.0.1:0` for any free port.
 *
 * @throws {CjmError} `WORKER_HANDSHAKE` for an address of another form.
 */
export async function listen(listener: RequestListener, address: string): Promise<Listening> {
  const server = createServer(listener);
  removeTimeouts(server);
  const path = /^unix:(?<path>.+)$/u.exec(address)?.groups?.["path"];
  if (path !== undefined) return listenUnix(server, path);
  const port = /^tcp:127\.0\.0\.1:(?<port>\d+)$/u.exec(address)?.groups?.["port"];
  if (port !== undefined) return listenTcp(server, Number(port));
  throw new CjmError(
    "WORKER_HANDSHAKE",
    `CJM_LISTEN is "${address}": unix:<path> or tcp:127.0.0.1:<port>`,
  );
}

/** Only deadline, cancel or the worker's death end a call. */
function removeTimeouts(server: Server): void {
  server.requestTimeout = 0;
  server.headersTimeout = 0;
  server.timeout = 0;
  // The host keeps its connections open between calls, however long it has none.
  server.keepAliveTimeout = 0;
}

async function listenUnix(server: Server, path: string): Promise<Listening> {
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH_BYTES) {
    throw new CjmError(
      "WORKER_HANDSHAKE",
      `the socket path ${path} has ${bytes} bytes; the limit is ${MAX_SOCKET_PATH_BYTES}`,
    );
  }
  const listening = opened(server);
  // The socket is bound, with these permissions, before listen returns.
  const umask = process.umask(0o177);
  try {
    server.listen(path);
  } finally {
    process.umask(umask);
  }
  await listening;
  return { address: `unix:${path}`, port: undefined, close: () => unlinkQuietly(path) };
}

async function listenTcp(server: Server, port: number): Promise<Listening> {
  const listening = opened(server);
  server.listen(port, "127.0.0.1");
  await listening;
  const address = server.address();
  const bound = typeof address === "object" ? (address?.port ?? port) : port;
  return { address: `tcp:127.0.0.1:${bound}`, port: bound, close: () => undefined };
}

function opened(server: Server): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("listening", resolve);
  server.once("error", reject);
  return promise;
}

function unlinkQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Gone already: the host clears its run folder too.
  }
}
