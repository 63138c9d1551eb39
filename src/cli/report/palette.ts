const COLOURS = 8;

/** One colour for each instance throughout a report, in the order in which they appear. */
export class Palette {
  readonly names: readonly string[];

  constructor(names: Iterable<string>) {
    this.names = [...new Set(names)];
  }

  /** Class of the colour: fill, stroke and text take it from there. */
  classOf(name: string): string {
    const at = this.names.indexOf(name);
    return `c${(at === -1 ? this.names.length : at) % COLOURS}`;
  }
}
