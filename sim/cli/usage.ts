/** The command line says something that cannot be meant. */
export class UsageError extends Error {
  override readonly name = "UsageError"
}
