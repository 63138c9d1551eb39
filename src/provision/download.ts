import { CjmError } from "../errors/index.ts";

/**
 * Fetches a file over HTTP, through the user's proxy where the environment names one.
 *
 * @throws {CjmError} `INSTALL_FAILED` naming the address, for any answer but 200 and for one that is
 * larger than `maxBytes`.
 */
export async function download(
  url: string,
  maxBytes: number,
  signal?: AbortSignal,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  // Most commands that come through here download nothing.
  const { EnvHttpProxyAgent, fetch } = await import("undici");
  try {
    const dispatcher = new EnvHttpProxyAgent();
    const response = await fetch(url, { dispatcher, signal: signal ?? null });
    if (!response.ok || response.body === null) {
      throw new CjmError("INSTALL_FAILED", `${url}: HTTP ${response.status}`);
    }
    const body: AsyncIterable<Uint8Array> = response.body;
    for await (const chunk of body) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > maxBytes) {
        throw new CjmError("INSTALL_FAILED", `${url}: larger than ${maxBytes} bytes`);
      }
    }
  } catch (error) {
    if (error instanceof CjmError || signal?.aborted === true) throw error;
    const reason = error instanceof Error ? (error.cause ?? error) : error;
    throw new CjmError("INSTALL_FAILED", `${url}: ${String(reason)}`, { cause: error });
  }
  return Buffer.concat(chunks);
}
