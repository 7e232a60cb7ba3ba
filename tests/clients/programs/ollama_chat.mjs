// Ollama's library for JavaScript: models, an answer whole and streamed, a function called, a model loaded and unloaded.
import { createRequire } from "node:module";
import assert from "node:assert";

const { Ollama } = createRequire(process.env.NODE_PATH + "/")("ollama");
const client = new Ollama({ host: process.env.SQUISH_URL });
const model = "smollm2:135m";
const messages = [{ role: "user", content: "Weather?" }];

assert.deepEqual((await client.list()).models.map((each) => each.name), [model]);
assert.ok((await client.show({ model })).capabilities.includes("tools"));
const names = [];
for await (const line of await client.pull({ model, stream: true })) names.push(line.status);
assert.equal(names.at(-1), "success");
assert.equal((await client.generate({ model, prompt: "", keep_alive: "5m" })).done_reason, "load");

const tools = [{ type: "function", function: { name: "weather", description: "", parameters: {
  type: "object", properties: { city: { type: "string", description: "" } }, required: ["city"] } } }];
const { message } = await client.chat({ model, messages, tools });
assert.deepEqual(message.tool_calls[0].function.arguments, { city: "Berlin" });
const result = { role: "tool", tool_name: "weather", content: "sunny" };
let text = "";
for await (const part of await client.chat({ model, messages: [...messages, message, result], tools, stream: true })) {
  text += part.message.content;
}
await assert.rejects(client.chat({ model, messages, options: { mirostat: 2 } }), { status_code: 400 });
console.log(text);
