// OpenAI's library for JavaScript: a response whole, streamed, kept, gone on with, and a function called.
import { createRequire } from "node:module";
import assert from "node:assert";

const OpenAI = createRequire(process.env.NODE_PATH + "/")("openai").default;
const client = new OpenAI({ baseURL: process.env.SQUISH_URL + "/v1", apiKey: "any" });
const model = "smollm2:135m";

const whole = await client.responses.create({ model, input: "Say hello." });
const kept = await client.responses.retrieve(whole.id);
assert.equal(kept.output_text, whole.output_text);
const next = await client.responses.create({ model, input: "Again.", previous_response_id: whole.id });
assert.equal(next.previous_response_id, whole.id);
await client.responses.delete(whole.id);
await assert.rejects(client.responses.retrieve(whole.id), { status: 404 });

const tools = [{ type: "function", name: "weather", strict: true, parameters: {
  type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false } }];
const called = await client.responses.create({ model, input: "Weather?", tools });
assert.deepEqual(JSON.parse(called.output[0].arguments), { city: "Berlin" });

let text = "";
const stream = client.responses.stream({ model, input: "Say hello." });
stream.on("response.output_text.delta", (event) => { text += event.delta; });
const final = await stream.finalResponse();
assert.equal(text, final.output_text);
console.log(text);
