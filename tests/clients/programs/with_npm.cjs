// The npm clients of OpenAI and Anthropic, as an application uses them: `node with_npm.cjs` prints a line
// of JSON as __main__.py does.
"use strict";

const net = require("node:net");
const OpenAI = require("openai");
const Anthropic = require("@anthropic-ai/sdk");

const { SERVER_URL: url, SERVER_KEY: apiKey } = process.env;
const tried = [];
const ASKED = [{ role: "user", content: "Say something." }];
const LONG = [{ role: "user", content: "word ".repeat(3000) }];
const SCHEMA = {
  type: "object",
  properties: { city: { enum: ["Oslo", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
const WEATHER = { name: "weather", description: "The weather of a city.", parameters: SCHEMA };
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });

// Nothing leaves this machine, and who was looked for elsewhere is told.
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const [options] = Array.isArray(given[0]) ? given[0] : given;
  const host = options.host ?? "localhost";
  if (!["localhost", "127.0.0.1", "::1"].includes(host)) {
    tried.push(host);
    throw new Error(`not on this machine: ${host}`);
  }
  return connect.apply(this, given);
};

function chat(more) {
  return openai.chat.completions.create({ model: "org/tiny", messages: ASKED, temperature: 0, max_tokens: 60, ...more });
}

function response(more) {
  return openai.responses.create({
    model: "org/tiny",
    input: "Say something.",
    temperature: 0,
    max_output_tokens: 60,
    ...more,
  });
}

function message(more) {
  return anthropic.messages.create({ model: "org/tiny", messages: ASKED, temperature: 0, max_tokens: 60, ...more });
}

// What of an answer does not change from one time to the next.
function told({ choices: [choice], usage }) {
  const calls = (choice.message.tool_calls ?? []).map((call) => [
    call.function.name,
    JSON.parse(call.function.arguments),
  ]);
  return {
    text: choice.message.content,
    calls,
    reason: choice.finish_reason,
    usage: usage && [usage.prompt_tokens, usage.completion_tokens],
  };
}

async function raised(call) {
  try {
    await call();
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code, says: error.message };
  }
  throw new Error("nothing was raised");
}

async function gathered(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

const cases = {
  async openaiChat() {
    return told(await chat());
  },

  async openaiStream() {
    const chunks = await gathered(await chat({ stream: true, stream_options: { include_usage: true } }));
    return {
      text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
      reasons: chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean),
      usage: [chunks.at(-1).usage.prompt_tokens, chunks.at(-1).usage.completion_tokens],
    };
  },

  async openaiCall() {
    const tools = [{ type: "function", function: WEATHER }];
    const first = await chat({ tools, tool_choice: "required", parallel_tool_calls: false });
    const [call] = first.choices[0].message.tool_calls;
    const result = { role: "tool", tool_call_id: call.id, content: "rain" };
    const second = await chat({ tools, messages: [...ASKED, first.choices[0].message, result] });
    return [told(first), told(second)];
  },

  async openaiOwnCall() {
    const tools = [{ type: "function", function: { ...WEATHER } }];
    const stream = openai.chat.completions.stream({ model: "caller", messages: ASKED, temperature: 0, tools });
    return told(await stream.finalChatCompletion());
  },

  async openaiRunTools() {
    const asked = [];
    const weather = { ...WEATHER, parse: JSON.parse, function: ({ city }) => `rain in ${asked.push(city) && city}` };
    const runner = openai.chat.completions.runTools(
      { model: "caller", messages: ASKED, temperature: 0, tools: [{ type: "function", function: weather }] },
      { maxChatCompletions: 2 },
    );
    await runner.done();
    return { asked, roles: runner.messages.map((each) => each.role) };
  },

  async openaiStructured() {
    const response_format = { type: "json_schema", json_schema: { name: "city", schema: SCHEMA, strict: true } };
    const answer = await chat({ response_format, max_tokens: 600 });
    return JSON.parse(answer.choices[0].message.content);
  },

  async openaiCompletion() {
    const asked = { model: "org/tiny", prompt: "Once", temperature: 0, max_tokens: 20 };
    const chunks = await gathered(await openai.completions.create({ ...asked, stream: true }));
    const whole = await openai.completions.create(asked);
    return [whole.choices[0].text, chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("")];
  },

  async openaiResponses() {
    const first = await response();
    const second = await response({ input: "And?", previous_response_id: first.id });
    const events = await gathered(await response({ stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    const stream = openai.responses.stream({ model: "thinker", input: "Say something.", temperature: 0 });
    const final = await stream.finalResponse();
    return {
      whole: first.output_text,
      read: [first.usage.input_tokens, second.usage.input_tokens],
      stream: deltas.map((event) => event.delta).join(""),
      ends: events.at(-1).type,
      thinker: final.output.map((item) => item.type),
      says: final.output_text,
    };
  },

  async openaiEmbeddings() {
    const input = ["the sea", "a stock market"];
    const byDefault = await openai.embeddings.create({ model: "org/vectors", input });
    const plain = await openai.embeddings.create({ model: "org/vectors", input, encoding_format: "float" });
    return [byDefault, plain].map((answer) => answer.data.map((item) => item.embedding));
  },

  async openaiModels() {
    const ids = (await gathered(await openai.models.list())).map((model) => model.id);
    return { ids, one: (await openai.models.retrieve("org/tiny")).id };
  },

  async openaiLeaves() {
    const stream = await chat({ stream: true, max_tokens: 1500 });
    let pieces = 0;
    for await (const _ of stream) if (++pieces === 3) break;
    return { pieces, aborted: stream.controller.signal.aborted };
  },

  async openaiErrors() {
    return {
      long: await raised(() => chat({ messages: LONG })),
      "long stream": await raised(() => chat({ messages: LONG, stream: true })),
      unknown: await raised(() => chat({ model: "nobody" })),
      wrong: await raised(() => chat({ temperature: 9 })),
      image: await raised(() =>
        chat({ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:," } }] }] }),
      ),
      path: await raised(() => openai.files.list()),
      key: await raised(() => openai.withOptions({ apiKey: "another" }).models.list()),
    };
  },

  async anthropicMessage() {
    const answer = await message();
    const counted = await anthropic.messages.countTokens({ model: "org/tiny", messages: ASKED });
    return { text: answer.content[0].text, reason: answer.stop_reason, read: answer.usage.input_tokens, counted };
  },

  async anthropicStream() {
    const stream = anthropic.messages.stream({ model: "thinker", messages: ASKED, max_tokens: 60 });
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    return { text, blocks: final.content.map((block) => block.type), reason: final.stop_reason };
  },

  async anthropicCall() {
    const tools = [{ name: "weather", description: "The weather of a city.", input_schema: SCHEMA }];
    const first = await message({ tools, tool_choice: { type: "tool", name: "weather" } });
    const [call] = first.content;
    const result = { type: "tool_result", tool_use_id: call.id, content: "rain" };
    const history = [
      ...ASKED,
      { role: "assistant", content: first.content },
      { role: "user", content: [result] },
    ];
    const second = await message({ tools, messages: history });
    return { input: call.input, reason: first.stop_reason, then: second.content.map((block) => block.type) };
  },

  async anthropicModels() {
    return (await gathered(anthropic.models.list())).map((model) => model.id);
  },

  async environment() {
    const openais = await gathered(await new OpenAI().models.list());
    const anthropics = await gathered(new Anthropic().models.list());
    return [openais, anthropics].map((models) => models.map((model) => model.id));
  },

  async anthropicErrors() {
    return {
      long: await raised(() => message({ messages: LONG })),
      unknown: await raised(() => message({ model: "nobody" })),
      wrong: await raised(() => message({ temperature: 9 })),
      key: await raised(() => anthropic.withOptions({ apiKey: "another" }).models.list()),
    };
  },
};

(async () => {
  const gave = {};
  for (const [name, run] of Object.entries(cases)) {
    try {
      gave[name] = { gave: await run() };
    } catch (error) {
      gave[name] = { raised: error.stack };
    }
  }
  process.stdout.write(`\n${JSON.stringify({ tried, cases: gave })}\n`);
})();
