/** Where roles are found that are not a node by name. */

/** The active coordinator: only it serves there. */
export const COORDINATOR = "coordinator"
