type Compact<T> = { [K in keyof T]?: Exclude<T[K], undefined> } & {
  [K in keyof T as undefined extends T[K] ? never : K]: T[K];
};

/** The same object without the members that are `undefined`. */
export function compact<T extends object>(value: T): Compact<T> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- removing undefined members is what Compact says
  return Object.fromEntries(
    Object.entries(value).filter(([, member]) => member !== undefined),
  ) as Compact<T>;
}
