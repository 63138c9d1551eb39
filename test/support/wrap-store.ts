import type { StorePort } from "../../src/store/index.ts";

/** The store with some of its members replaced; everything else goes to the real one. */
export function wrapStore(store: StorePort, replaced: Partial<StorePort>): StorePort {
  return new Proxy(store, {
    get(target, key) {
      if (key in replaced) return Reflect.get(replaced, key, replaced) as unknown;
      const value = Reflect.get(target, key, target) as unknown;
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}
