// Writes zod.json beside this file: the JSON schemas that Zod makes of its types.
//
// In an empty directory, with Node 20 or later and SCHEMAS being the directory of this file:
//
//     npm install zod@4 && cp SCHEMAS/make_zod.mjs . && node make_zod.mjs SCHEMAS/zod.json

import { readFileSync, writeFileSync } from "node:fs";
import { z } from "zod";

const Cat = z.object({ kind: z.literal("cat"), lives: z.number().int() });
const Dog = z.object({ kind: z.literal("dog"), breed: z.string() });
const Category = z.object({ name: z.string(), get children() { return z.array(Category); } });
const Step = z.object({ explanation: z.string(), output: z.string() });

const types = {
  "string": z.string(),
  "number": z.number(),
  "boolean": z.boolean(),
  "null": z.null(),
  "any": z.any(),
  "unknown": z.unknown(),
  "never": z.never(),
  "int": z.int(),
  "int32": z.int32(),
  "uint32": z.uint32(),
  "float32": z.float32(),
  "float64": z.float64(),
  "number range": z.number().min(0).max(100),
  "number gt lt": z.number().gt(0).lt(1),
  "positive": z.number().positive(),
  "nonnegative int": z.int().nonnegative(),
  "multipleOf": z.number().multipleOf(0.5),
  "string length": z.string().min(3).max(8),
  "regex": z.string().regex(/^[A-Z]{3}-\d+$/),
  "password": z.string().regex(/^(?=.*[a-z])(?=.*\d).+$/),
  "startsWith": z.string().startsWith("x_"),
  "endsWith": z.string().endsWith(".txt"),
  "includes": z.string().includes("a.b"),
  "lowercase": z.string().lowercase(),
  "email": z.email(),
  "html5 email": z.email({ pattern: z.regexes.html5Email }),
  "url": z.url(),
  "httpUrl": z.httpUrl(),
  "uuid": z.uuid(),
  "uuidv4": z.uuidv4(),
  "guid": z.guid(),
  "cuid": z.cuid(),
  "cuid2": z.cuid2(),
  "ulid": z.ulid(),
  "nanoid": z.nanoid(),
  "emoji": z.emoji(),
  "ipv4": z.ipv4(),
  "ipv6": z.ipv6(),
  "cidrv4": z.cidrv4(),
  "cidrv6": z.cidrv6(),
  "base64": z.base64(),
  "base64url": z.base64url(),
  "e164": z.e164(),
  "jwt": z.jwt(),
  "hostname": z.hostname(),
  "hex": z.hex(),
  "iso date": z.iso.date(),
  "iso time": z.iso.time(),
  "iso datetime": z.iso.datetime(),
  "iso datetime offset": z.iso.datetime({ offset: true }),
  "iso datetime local": z.iso.datetime({ local: true }),
  "iso duration": z.iso.duration(),
  "enum": z.enum(["red", "green"]),
  "native enum": z.enum({ Low: 1, High: 2 }),
  "literal": z.literal("a"),
  "literals": z.literal(["a", 1, true, null]),
  "templateLiteral": z.templateLiteral(["v", z.int(), ".", z.int()]),
  "array": z.array(z.string()),
  "array length": z.array(z.int()).min(1).max(3),
  "tuple": z.tuple([z.string(), z.number()]),
  "tuple rest": z.tuple([z.string()], z.number()),
  "record": z.record(z.string(), z.int()),
  "record enum": z.record(z.enum(["a", "b"]), z.int()),
  "partialRecord": z.partialRecord(z.enum(["a", "b"]), z.int()),
  "looseRecord": z.looseRecord(z.string().regex(/^x_/), z.int()),
  "record pattern": z.record(z.string().regex(/^x_/), z.int()),
  "record length": z.record(z.string().min(2).max(5), z.int()),
  "record uuid": z.record(z.uuid(), z.string()),
  "object": z.object({ name: z.string(), age: z.int().optional() }),
  "strictObject": z.strictObject({ a: z.string() }),
  "looseObject": z.looseObject({ a: z.string() }),
  "catchall": z.object({ a: z.string() }).catchall(z.int()),
  "described": z.object({ q: z.string().describe("What to look for.").default("x") }).meta({ title: "Query", examples: [{ q: "x" }] }),
  "optional nullable": z.object({ a: z.string().nullable(), b: z.string().optional(), c: z.string().nullish() }),
  "partial": Cat.partial(),
  "extended": Cat.extend({ owner: z.string() }),
  "union": z.union([z.string(), z.int()]),
  "union of objects": z.union([Cat, Dog]),
  "discriminatedUnion": z.discriminatedUnion("kind", [Cat, Dog]),
  "xor": z.xor([z.string(), z.int()]),
  "intersection": z.intersection(z.object({ a: z.string() }), z.object({ b: z.int() })),
  "recursive": Category,
  "json": z.json(),
  "readonly": z.object({ a: z.string() }).readonly(),
  "default": z.object({ a: z.int().default(1) }),
  "catch": z.object({ a: z.int().catch(1) }),
  "pipe": z.string().pipe(z.string().min(2)),
  "math reasoning": z.object({ steps: z.array(Step), final_answer: z.string() }),
};

const schemas = {};
for (const [name, type] of Object.entries(types)) {
  schemas[name] = z.toJSONSchema(type, { unrepresentable: "any" });
}
for (const name of ["object", "tuple", "record enum", "discriminatedUnion", "recursive"]) {
  schemas[`${name} (draft 7)`] = z.toJSONSchema(types[name], { target: "draft-7" });
}
const { version } = JSON.parse(readFileSync("node_modules/zod/package.json", "utf8"));
const target = process.argv[2] ?? "zod.json";
writeFileSync(target, JSON.stringify({ made_by: `zod ${version}`, schemas }, null, 1) + "\n");
console.log(`${Object.keys(schemas).length} schemas in ${target}`);
