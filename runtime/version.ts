/** The version of this Elanus, as package.json has it: nodes tell each other, and `elanus --version` tells people. */
export const VERSION = "0.1.0"
