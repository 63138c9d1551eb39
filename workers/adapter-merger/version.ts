/** Version of the tool; part of every recipe hash, so it changes when any output byte may. */
export const VERSION = "0.1.0";
