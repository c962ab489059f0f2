/** A process in which the simulator is hollowed out in one way, or in none (""): it says what a guard has against it. */
import { plantBug } from "./bugs.ts"
import { hollows, SIGHT } from "../hollow.ts"
import { plant } from "../mutate.ts"

const [name = "", guardName = ""] = process.argv.slice(2)
if (name !== "") {
  const hollow = hollows.find((one) => one.name === name)
  if (hollow === undefined) throw new Error(`there is no hollow simulator ${name}`)
  plant(hollow)
}
if (guardName === "sight") await plantBug(SIGHT.bug)
// Only now: what was imported before would be whole.
const { guards, sight } = await import("../guards.ts")

const guard = [...guards, sight].find((one) => one.name === guardName)
if (guard === undefined) throw new Error(`there is no guard ${guardName}`)
process.stdout.write(JSON.stringify(guard.problems()))
