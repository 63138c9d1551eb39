import type { Command } from "commander";
import type { GlobalOptions } from "./context.ts";

/** What a command is to its help. */
export interface About {
  readonly summary: string;
  /** Arguments of an example call, as typed after `cjm-ctl`. */
  readonly example: string;
  /** Heading under which `--help` lists it. */
  readonly heading: string;
}

/** What a group of commands is registered with. */
export interface Frame {
  /** Adds a command; its options and action are set on what comes back. */
  readonly command: (name: string, about: About) => Command;
  /** The options that stand before or after any command. */
  readonly globals: () => GlobalOptions;
  /** Keeps the exit code that a command answers. */
  readonly finish: (outcome: Promise<number>) => Promise<void>;
  /** Every command there is, for what describes the command line itself. */
  readonly program: Command;
}

/** Adds its commands. A command's code is loaded when it runs: help must cost nothing. */
export type Group = (frame: Frame) => void;

/** Parsed options of one command; each action hands them to the type its command declares. */
export type Options = Record<string, never>;

/** The option of every command that prints data. */
export const JSON_OPTION = ["--json", "print one JSON document"] as const;
/** And of those that print as they go. */
export const JSON_LINES_OPTION = ["--json", "print one JSON object a line"] as const;
