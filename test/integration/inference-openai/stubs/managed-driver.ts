// A server program for the tests of a managed server: `managed-driver.ts <port> [behaviour]`.
import { createServer } from "node:http";
import { spawn } from "node:child_process";

const [port, behaviour = "well"] = process.argv.slice(2);
console.log(`starting: ${behaviour}`);
if (behaviour === "dies") {
  console.error("no such model");
  process.exit(3);
}
if (behaviour === "ignores-sigterm") process.on("SIGTERM", () => undefined);
// Like vLLM's engine, a process of its own that holds what is to be freed.
const engine = spawn(process.execPath, ["-e", "setInterval(() => 0, 1000)"], { stdio: "ignore" });

const server = createServer((request, response) => {
  request.resume();
  if (request.url === "/v1/models") {
    response.end('{"data":[{"id":"tiny"}]}');
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (value: object): void => {
    response.write(`data: ${JSON.stringify(value)}\n\n`);
  };
  send({ choices: [{ index: 0, text: `${process.pid} ${engine.pid}` }] });
  if (behaviour === "hangs") return;
  send({ choices: [{ index: 0, text: "", finish_reason: "stop" }] });
  send({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 1 } });
  response.end("data: [DONE]\n\n");
});
if (behaviour !== "mute") server.listen(Number(port), "127.0.0.1");
