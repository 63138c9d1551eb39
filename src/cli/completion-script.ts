import type { Command, Option } from "commander";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** A shell script that completes commands, options, their choices, and files elsewhere. */
export function completionScript(shell: Shell, program: Command): string {
  return { bash, zsh, fish }[shell](program);
}

const optionsOf = (command: Command): readonly Option[] =>
  command.createHelp().visibleOptions(command);

/** `-f --force`, as typed. */
const flagsOf = ({ short, long }: Option): readonly string[] =>
  [short, long].filter((flag) => flag !== undefined);

const takesValue = ({ required, optional }: Option): boolean => required || optional;

/** Choices of a command's first argument that are words and not files. */
function wordsOf(command: Command): readonly string[] {
  return command.registeredArguments[0]?.argChoices ?? [];
}

function bash(program: Command): string {
  const name = program.name();
  const global = optionsOf(program);
  const cases = program.commands.map((command) => {
    const words = [...global, ...optionsOf(command)].flatMap(flagsOf).concat(wordsOf(command));
    return `    ${command.name()}) words="${[...new Set(words)].join(" ")}" ;;`;
  });
  const values = [program, ...program.commands].flatMap((command) =>
    optionsOf(command).flatMap((option) => {
      if (option.argChoices === undefined) return [];
      // One letter means another option elsewhere, so its choices belong to its command.
      const place = command === program ? "*" : command.name();
      const pattern = flagsOf(option)
        .map((flag) => `${place}:${flag}`)
        .join("|");
      const reply = `COMPREPLY=($(compgen -W "${option.argChoices.join(" ")}" -- "$current"))`;
      return [`    ${pattern}) ${reply}; return ;;`];
    }),
  );
  const names = program.commands.map((command) => command.name());
  const skipped = global.filter(takesValue).flatMap(flagsOf);
  return `# bash completion of ${name}
_${id(name)}() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${COMP_WORDS[i]}" in
    ${skipped.join("|")}) ((i++)) ;;
    -*) ;;
    *) command="\${COMP_WORDS[i]}"; break ;;
    esac
  done
  case "$command:$previous" in
${values.join("\n")}
  esac
  case "$command" in
    "") words="${[...names, ...global.flatMap(flagsOf)].join(" ")}" ;;
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _${id(name)} ${name}`;
}

function zsh(program: Command): string {
  const name = program.name();
  const global = optionsOf(program).map((option) => `    ${zshOption(option)}`);
  const commands = program.commands.map(
    (command) => `    ${quoted(`${zshText(command.name())}:${zshText(command.description())}`)}`,
  );
  const cases = program.commands.map((command) => {
    const words = wordsOf(command);
    const rest = words.length === 0 ? `'*:file:_files'` : `'1:word:(${words.join(" ")})'`;
    const lines = [...optionsOf(command).map(zshOption), rest];
    return `    ${command.name()}) _arguments -s ${lines.join(" ")} ;;`;
  });
  return `#compdef ${name}
# zsh completion of ${name}
_${id(name)}() {
  local -a commands
  commands=(
${commands.join("\n")}
  )
  local context state line
  _arguments -C -s \\
${global.map((line) => `${line} \\`).join("\n")}
    '1:command:->command' '*::argument:->argument'
  case "$state" in
  command) _describe command commands ;;
  argument)
    case "$line[1]" in
${cases.join("\n")}
    esac ;;
  esac
}
compdef _${id(name)} ${name}`;
}

function zshOption(option: Option): string {
  const flags = flagsOf(option);
  const value = takesValue(option)
    ? `:value:${option.argChoices === undefined ? "_files" : `(${option.argChoices.join(" ")})`}`
    : "";
  const text = `[${zshText(option.description)}]${value}`;
  return flags.map((flag) => quoted(`${flag}${text}`)).join(" ");
}

function fish(program: Command): string {
  const name = program.name();
  const lines = [`# fish completion of ${name}`];
  for (const option of optionsOf(program)) lines.push(`complete -c ${name} ${fishOption(option)}`);
  for (const command of program.commands) {
    const used = `-n "__fish_seen_subcommand_from ${command.name()}"`;
    lines.push(
      `complete -c ${name} -f -n __fish_use_subcommand -a ${command.name()} -d ${quoted(command.description())}`,
      ...optionsOf(command).map((option) => `complete -c ${name} ${used} ${fishOption(option)}`),
    );
    const words = wordsOf(command);
    if (words.length > 0)
      lines.push(`complete -c ${name} ${used} -f -a ${quoted(words.join(" "))}`);
  }
  return lines.join("\n");
}

function fishOption(option: Option): string {
  const { short, long, description, argChoices } = option;
  return [
    ...(short === undefined ? [] : [`-s ${short.slice(1)}`]),
    ...(long === undefined ? [] : [`-l ${long.slice(2)}`]),
    ...(takesValue(option) ? ["-r"] : []),
    ...(argChoices === undefined ? [] : [`-f -a ${quoted(argChoices.join(" "))}`]),
    `-d ${quoted(description)}`,
  ].join(" ");
}

const id = (name: string): string => name.replaceAll(/\W/gu, "_");
const quoted = (text: string): string => `'${text.replaceAll("'", "’")}'`;
const zshText = (text: string): string => text.replaceAll(/[[\]:]/gu, (char) => `\\${char}`);
