#!/usr/bin/env node
/**
 * The command `elanus`: starts a process of a cluster, and talks to one (or to a directory) as any client would. The
 * command line itself is in cli/; this only lets it start fast.
 *
 * Answers go to stdout, as tables for people or with `--json` as one line of JSON; errors, logs and progress to stderr.
 * A script can rely on the exit code (cli/exit.ts has the table, and `--help` shows it):
 *
 *   0  done                                   4  somebody must look: damaged data, an unfit server or directory
 *   1  the request is wrong                   5  a bug in Elanus
 *   2  the command line is wrong              6  it may have been done or not: ambiguous
 *   3  not possible now, a retry may help
 */
import { enableCompileCache } from "node:module"
import { homedir } from "node:os"
import { join } from "node:path"

// All else is loaded after this: with the compiled form of every module kept, a short command takes half the time.
enableCompileCache(join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "elanus", "compiled"))

const { run } = await import("./cli/program.ts")
await run(process.argv.slice(2))
