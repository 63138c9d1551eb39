import type { JournalFilter, StorePort } from "../store/index.ts";
import { isTerminalEvent, type QueueEvent } from "./events.ts";
import { type RunLoop, toQueueEvent } from "./run-loop.ts";

const PAGE = 500;

/**
 * What the journal has, then what happens, with no gap and no duplicate: the subscription begins
 * before the journal is read, and live events that were read already are left out by `seq`.
 *
 * Ends by itself after the terminal event of the job or composition it follows.
 */
export async function* followEvents(
  loop: RunLoop,
  store: StorePort,
  { topic, filter }: { readonly topic: string; readonly filter: JournalFilter | null },
): AsyncGenerator<QueueEvent> {
  using reader = loop.events.subscribe(topic, 10_000);
  let seen = filter?.afterSeq ?? 0;
  for (let isMore = filter !== null; isMore;) {
    const page = await store.queryJournal({ ...filter, afterSeq: seen, limit: PAGE });
    for (const row of page) {
      seen = row.seq;
      const event = toQueueEvent(row);
      yield event;
      if (isTerminalEvent(event, filter)) return;
    }
    isMore = page.length === PAGE;
  }
  for await (const event of reader) {
    if (event.seq !== null && event.seq <= seen) continue;
    if (event.seq !== null) seen = event.seq;
    yield event;
    if (isTerminalEvent(event, filter)) return;
  }
}
