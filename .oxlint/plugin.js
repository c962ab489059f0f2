/**
 * The house rules that no built-in rule can say: who may import whom, where mutable state may live, and that
 * nothing which the simulator runs asks the real world for time, chance or bytes.
 *
 * It judges by paths and syntax only and must never read a file: the same rules then hold for the mini tree
 * of test/tidy.test.ts, which proves that each of them bites.
 */
import path from "node:path"

/** Arrows to the left only. */
const layers = ["protocols", "storage", "runtime", "actors", "sim", "test"]

/** The composition roots (the demo is a program on top of the library's entry). They may import anything. */
const roots = [
  "runtime/main.ts",
  "runtime/cli/*.ts",
  "runtime/elanus.ts",
  "runtime/places.ts",
  "runtime/demo.ts",
  "sim/main.ts",
  "sim/cli/*.ts"
]

/** Turns a role's name into actors: imports what actors may, and is imported by roots, tests and the simulated world. */
const cast = "runtime/roles.ts"

/** Files that bind a port to the real world. Only roots, tests and each other may import them. */
const adapters = [
  "storage/*-jetstream.ts",
  "storage/jetstream-*.ts",
  "storage/*-local.ts",
  "storage/local-*.ts",
  "storage/nats-connection.ts",
  "storage/objects-*.ts",
  "storage/index-hnsw.ts",
  "storage/compute-*.ts",
  "runtime/bus-nats.ts",
  "runtime/bus-local.ts"
]

/** Of these, the ones that load no driver: a simulated world may use what is the same on every run in them. */
const simulable = ["runtime/bus-local.ts", "storage/compute-*.ts"]

/** Neither adapters nor roots, and yet they deal with the machine. Actors must not import them. */
const edges = [
  "runtime/server-finder.ts",
  "runtime/nats-server.ts",
  "runtime/settings.ts",
  "runtime/telemetry.ts",
  "runtime/*-process.ts",
  "runtime/client/*.ts",
  "sim/sealed.ts",
  "sim/run.ts",
  "sim/mutate.ts"
]

/** A driver, and the only files that may import it (beside roots and tests). */
const drivers = [
  {
    packages: ["nats", "@nats-io/*"],
    files: ["storage/*-jetstream.ts", "storage/jetstream-*.ts", "storage/nats-connection.ts", "runtime/bus-nats.ts"]
  },
  { packages: ["@aws-sdk/*"], files: ["storage/objects-s3.ts"] },
  { packages: ["hnswlib-node"], files: ["storage/index-hnsw.ts"] },
  { packages: ["classic-level"], files: ["storage/*-local.ts", "storage/local-*.ts"] },
  { packages: ["apache-arrow"], files: ["storage/segment-file.ts", "storage/delete-file.ts"] }
]

/** Where memory that lives as long as one message comes from. */
const isPool = (file) => file === "protocols/memory.ts"

const lifecycleFiles = ["runtime/lifecycle.ts", "**/lifecycle.ts", "**/*-lifecycle.ts"]

const toRegExp = (glob) =>
  new RegExp(
    "^" +
      glob
        .replace(/[.+?^${}()|[\]\\]/g, "\\$&")
        .replace(/\*\*\/|\*/g, (stars) => (stars === "*" ? "[^/]*" : "(?:.*/)?")) +
      "$"
  )
const matcher = (globs) => {
  const all = globs.map(toRegExp)
  return (text) => all.some((one) => one.test(text))
}
const isRoot = matcher(roots)
const isAdapter = matcher(adapters)
const isSimulable = matcher(simulable)
const isEdge = matcher(edges)
const isLifecycle = matcher(lifecycleFiles)
const driverRules = drivers.map(({ packages, files }) => ({
  isDriver: matcher(packages.flatMap((name) => [name, `${name}/**/*`])),
  mayImport: matcher(files)
}))

const layerOf = (file) => {
  const layer = layers.indexOf(file.split("/")[0])
  return layer < 0 || !file.includes("/") ? undefined : layer
}

/** Runs in the simulator as it is: no clock, no chance, no timers, no state outside of a scope. */
const isPure = (file) => {
  const layer = layerOf(file)
  return layer !== undefined && layers[layer] !== "test" && !isRoot(file) && !isAdapter(file) && !isEdge(file)
}

/** What is wrong with `file` importing `target` (a path from the repository's root), or undefined. */
const judgeFile = (file, target, typeOnly) => {
  const from = file === cast ? layers.indexOf("actors") : layerOf(file)
  const to = layerOf(target)
  if (from === undefined || isRoot(file) || layers[from] === "test") return undefined
  if (isRoot(target)) return `only tests and other roots import ${target}: it is a composition root`
  if (target === cast && layers[from] !== "sim")
    return `only roots, tests and sim/ import ${target}: it knows all actors`
  if (to === undefined) return `${target} is in no layer`
  if (to > from) return `${layers[from]}/ may not import ${layers[to]}/: arrows go ${layers.join(" <- ")}`
  // A port may speak of its tasks' types; the other way round, an adapter's type would leak its driver.
  if (typeOnly && to === from && isSimulable(target)) return undefined
  if (isAdapter(target) && !isAdapter(file) && !(layers[from] === "sim" && isSimulable(target))) {
    return `${target} is an adapter: import its port, and let a composition root choose`
  }
  if (isEdge(target) && layers[from] === "actors") return `${target} deals with the machine: an actor knows only ports`
  return undefined
}

/** What is wrong with `file` importing the package `name`, or undefined. */
const judgePackage = (file, name, typeOnly) => {
  const layer = layerOf(file)
  if (layer === undefined || isRoot(file) || layers[layer] === "test") return undefined
  if (name === "effect" || name.startsWith("effect/")) return undefined
  if (name === "xstate" || name.startsWith("xstate/")) {
    if (layers[layer] === "protocols" || layers[layer] === "storage") return `${name} belongs to runtime/ and actors/`
    if (typeOnly || isLifecycle(file)) return undefined
    return `xstate is a table here: import its values only in a lifecycle.ts`
  }
  for (const { isDriver, mayImport } of driverRules) {
    if (isDriver(name)) return mayImport(file) ? undefined : `${name} is a driver: only its adapter may import it`
  }
  if (file === "protocols/checksum.ts" && name === "node:zlib") return undefined
  if (file === "protocols/wire.ts" && name === "node:buffer") return undefined
  if (isAdapter(file) || isEdge(file)) return undefined
  return `${name} is outside of the simulated world: only adapters and composition roots import it`
}

const fileOf = (context) => path.relative(context.cwd, context.filename).split(path.sep).join("/")

const imports = {
  create(context) {
    const file = fileOf(context)
    const judge = (node, source, typeOnly) => {
      if (typeof source?.value !== "string") return
      const name = source.value
      const message = name.startsWith(".")
        ? judgeFile(file, path.posix.normalize(path.posix.join(path.posix.dirname(file), name)), typeOnly)
        : judgePackage(file, name, typeOnly)
      if (message !== undefined) context.report({ node, message })
    }
    return {
      ImportDeclaration: (node) =>
        judge(
          node,
          node.source,
          node.importKind === "type" ||
            (node.specifiers.length > 0 && node.specifiers.every((one) => one.importKind === "type"))
        ),
      ExportNamedDeclaration: (node) => judge(node, node.source, node.exportKind === "type"),
      ExportAllDeclaration: (node) => judge(node, node.source, node.exportKind === "type"),
      ImportExpression: (node) => judge(node, node.source, false),
      TSImportType: (node) => judge(node, node.source ?? node.argument, true)
    }
  }
}

const stateful = new Set(["Map", "Set", "WeakMap", "WeakSet", "Array"])

/** `const names: ReadonlyMap<...> = new Map(...)` is a table, not state. */
const saysReadonly = (declarator) => {
  const type = declarator.id.typeAnnotation?.typeAnnotation
  return type?.type === "TSTypeReference" && String(type.typeName?.name).startsWith("Readonly")
}

/** State outlives a simulated crash if it is the module's. */
const moduleState = {
  create(context) {
    const file = fileOf(context)
    if (!isPure(file) || file.startsWith("storage/")) return {}
    const judge = (statement) => {
      const declaration = statement?.type === "ExportNamedDeclaration" ? statement.declaration : statement
      if (declaration?.type === "ClassDeclaration") {
        for (const member of declaration.body.body) {
          const isState = member.type === "PropertyDefinition" && member.static && isStateful(member.value)
          if (isState)
            context.report({ node: member, message: "state of a class outlives a crash: keep it in a closure" })
        }
      }
      if (declaration?.type !== "VariableDeclaration") return
      for (const one of declaration.declarations) {
        if (declaration.kind === "const" && (!isStateful(one.init) || saysReadonly(one))) continue
        context.report({
          node: one,
          message:
            "state of a module outlives a crash: keep it in a closure (or, if it never changes, say so: ReadonlySet)"
        })
      }
    }
    return {
      Program: (program) => {
        for (const statement of program.body) judge(statement)
      }
    }
  }
}
const isStateful = (init) => init?.type === "NewExpression" && stateful.has(init.callee.name)

const worldly = {
  Date: "Clock from effect",
  performance: "Clock from effect",
  setTimeout: "Effect.sleep",
  setInterval: "Effect.repeat with a Schedule",
  setImmediate: "Effect.yieldNow",
  queueMicrotask: "Effect.yieldNow",
  process: "a setting that a composition root passes in",
  crypto: "Random from effect",
  globalThis: "an import",
  global: "an import",
  Buffer: "Uint8Array",
  fetch: "a port",
  WebSocket: "a port",
  Worker: "the port Compute",
  eval: "code"
}

/** Names of the real world, in files that a simulated one must be able to run. A name of one's own may be the same. */
const world = {
  create(context) {
    if (!isPure(fileOf(context))) return {}
    const judge = (node) => {
      if (node.name === "Buffer" && isPool(fileOf(context))) return
      if (Object.hasOwn(worldly, node.name)) {
        context.report({ node, message: `${node.name} differs from run to run: use ${worldly[node.name]}` })
      }
      if (node.name !== "Math") return
      // `const M = Math` would get around a rule that only knows `Math.random`.
      const { parent } = node
      const isPlainUse = parent.type === "MemberExpression" && parent.object === node && !parent.computed
      if (!isPlainUse || parent.property.name === "random") {
        context.report({ node, message: "Math.random differs from run to run: use Random from effect" })
      }
    }
    return {
      "Program:exit"() {
        const { globalScope } = context.sourceCode.scopeManager
        const declaredNowhere = globalScope.variables.filter(({ defs }) => defs.length === 0)
        const references = [...globalScope.through, ...declaredNowhere.flatMap((one) => one.references)]
        for (const reference of references) if (reference.isValueReference !== false) judge(reference.identifier)
      }
    }
  }
}

/** An Effect that is made and not yielded does nothing, silently. */
const floatingEffect = {
  create: (context) => ({
    ExpressionStatement(node) {
      let call = node.expression
      // `something.pipe(...)` is judged by what it begins with.
      while (
        call.type === "CallExpression" &&
        call.callee.type === "MemberExpression" &&
        call.callee.property.name === "pipe"
      ) {
        call = call.callee.object
      }
      if (call.type !== "CallExpression" || call.callee.type !== "MemberExpression") return
      const { object, property } = call.callee
      if (object.name !== "Effect" || String(property.name).startsWith("run")) return
      context.report({ node, message: "this Effect is never run: yield* it" })
    }
  })
}

export default {
  meta: { name: "elanus" },
  rules: { imports, world, "module-state": moduleState, "floating-effect": floatingEffect }
}
