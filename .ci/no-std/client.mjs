// A client whose protocol is the machine as WebAssembly, and whose host is Node: it subscribes,
// publishes with QoS 2, and waits for its own message.
//
//   node client.mjs FILE.wasm PORT

import { readFileSync } from "node:fs";
import { connect } from "node:net";

const [file, port] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(file));
const { memory, buffer, call } = instance.exports;
const HALF = 2048;
const [CONNECT, SUBSCRIBE, PUBLISH, STEP, TIMEOUT, DISCONNECT, DEADLINE] = [0, 1, 2, 3, 4, 5, 6];
const [NONE, CONNECTED, MESSAGE, PUBLISHED, SUBSCRIBED, CLOSED] = [0, 1, 2, 3, 4, 5];

const start = Date.now();
const socket = connect(Number(port), "127.0.0.1");
let received = Buffer.alloc(0);
let [isPublished, isDone] = [false, false];
let payload;
setTimeout(() => fail("nothing came in 10 seconds"), 10_000).unref();
socket.on("error", fail);
socket.on("close", () => fail("the server closed the connection"));
socket.on("connect", () => run(CONNECT, "wasm-client"));
socket.on("data", data => {
  received = Buffer.concat([received, data]);
  for (let action; !isDone && (action = run(STEP, received)) !== NONE;) on(action);
  const wait = (call(DEADLINE, 0, 0) >>> 0) - (Date.now() - start);
  setTimeout(() => on(run(TIMEOUT, "")), wait).unref();
});

function on(action) {
  if (action === CONNECTED) run(SUBSCRIBE, "wasm");
  if (action === SUBSCRIBED) run(PUBLISH, "21.5");
  if (action === PUBLISHED) isPublished = true;
  if (action === CLOSED) fail("the machine closed the connection");
  if (isPublished && payload !== undefined) {
    run(DISCONNECT, "");
    console.log(`received ${payload} through the client in WebAssembly`);
    socket.end(() => process.exit(payload === "21.5" ? 0 : 1));
    isDone = true;
  }
}

/** Calls the machine, and writes its output. Returns its action. */
function run(operation, input) {
  const bytes = Buffer.from(input).subarray(0, HALF);
  Buffer.from(memory.buffer, buffer(), HALF).set(bytes);
  const result = call(operation, bytes.length, Date.now() - start);
  const [action, taken, written] = [result >>> 24, (result >> 12) & 0xfff, result & 0xfff];
  socket.write(Buffer.from(Buffer.from(memory.buffer, buffer() + HALF, written)));
  if (operation === STEP) {
    if (action === MESSAGE) payload = bytes.subarray(taken - 4, taken).toString();
    received = received.subarray(taken);
  }
  return action;
}

function fail(reason) {
  console.error(String(reason));
  process.exit(1);
}
