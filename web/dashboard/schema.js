/**
 * Reading a JSON Schema, as pydantic writes it: following references, taking `null` apart from what else may be there,
 * and telling which kind of field it asks for.
 *
 * @typedef {{ [key: string]: any }} Schema
 * @typedef {"text" | "number" | "integer" | "boolean" | "choice" | "object" | "list" | "constant" | "json"} Kind
 * @typedef {{ schema: Schema, isNullable: boolean, kind: Kind }} Wish
 */

/** A schema that holds itself would be a form without end. */
const MAX_DEPTH = 4

/** What a schema asks for. @param {Schema} schema @param {Schema} root  where `#/$defs` are @param {number} depth @returns {Wish} */
export function wishOf(schema, root, depth) {
  const found = followed(schema, root)
  const some = /** @type {Schema[]} */ (found.anyOf ?? found.oneOf ?? [])
  const others = some.filter(({ type }) => type !== "null")
  const isNullable = others.length < some.length
  if (some.length === 0) return { schema: found, isNullable, kind: kindOf(found, depth) }
  if (others.length > 1) return { schema: found, isNullable, kind: "json" }
  const { anyOf: _, oneOf: __, ...rest } = found
  const only = { ...followed(others[0] ?? { const: null }, root), ...rest }
  return { schema: only, isNullable, kind: kindOf(only, depth) }
}

/** A schema with its reference put in place; what stands beside the reference counts. @param {Schema} schema @param {Schema} root */
function followed(schema, root) {
  let found = schema.allOf?.length === 1 ? { ...schema.allOf[0], ...schema, allOf: undefined } : schema
  for (let hops = 0; typeof found.$ref === "string" && hops < MAX_DEPTH; hops++) {
    const { $ref, ...beside } = found
    const path = $ref.replace(/^#\/?/, "").split("/").filter(Boolean)
    const target = path.reduce((/** @type {any} */ at, /** @type {string} */ name) => at?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], root)
    found = { ...target, ...beside }
  }
  return found
}

/** @param {Schema} schema @param {number} depth @returns {Kind} */
function kindOf(schema, depth) {
  if ("const" in schema || schema.type === "null") return "constant"
  if (Array.isArray(schema.enum)) return "choice"
  if (depth >= MAX_DEPTH || schema.allOf) return "json"
  switch (schema.type) {
    case "string":
      return "text"
    case "number":
    case "integer":
    case "boolean":
      return schema.type
    case "object":
      return isObject(schema.properties) && !schema.additionalProperties ? "object" : "json"
    case "array":
      return isObject(schema.items) && !schema.prefixItems ? "list" : "json"
    default:
      return "json"
  }
}

/** @param {unknown} value @returns {value is Schema} */
export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value)
