// Anthropic's library for JavaScript: counted, whole, streamed, and a tool called.
import { createRequire } from "node:module";
import assert from "node:assert";

const Anthropic = createRequire(process.env.NODE_PATH + "/")("@anthropic-ai/sdk").default;
const client = new Anthropic({ baseURL: process.env.SQUISH_URL, apiKey: "any", maxRetries: 0 });
const model = "smollm2:135m";
const asked = { model, max_tokens: 64, messages: [{ role: "user", content: "Say hello." }] };

const { input_tokens } = await client.beta.messages.countTokens({ model, messages: asked.messages });
assert(input_tokens > 0);
const whole = await client.messages.create(asked);
assert.equal(whole.stop_reason, "end_turn");

const tools = [{ name: "weather", input_schema: {
  type: "object", properties: { city: { type: "string" } }, required: ["city"] } }];
const calling = client.messages.stream({ ...asked, tools });
let json = "";
calling.on("inputJson", (piece) => { json += piece; });
const called = await calling.finalMessage();
assert.equal(called.stop_reason, "tool_use");
assert.deepEqual(JSON.parse(json), called.content[0].input);
const result = { type: "tool_result", tool_use_id: called.content[0].id, content: "rain" };
const messages = [...asked.messages, { role: "assistant", content: called.content }, { role: "user", content: [result] }];
const after = await client.messages.create({ ...asked, messages, tools });
assert.equal(after.content[0].type, "text");

await assert.rejects(client.messages.create({ ...asked, model: "../nothing" }), { status: 404 });
let text = "";
const stream = client.messages.stream(asked);
stream.on("text", (piece) => { text += piece; });
const final = await stream.finalMessage();
assert.deepEqual(final.content, whole.content);
console.log(text);
