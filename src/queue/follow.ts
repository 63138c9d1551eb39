import type { JournalFilter, StorePort } from "../store/index.ts";
import type { EventReader } from "./event-stream.ts";
import { isTerminalEvent, type QueueEvent } from "./events.ts";
import { toQueueEvent } from "./publisher.ts";
import type { RunLoop } from "./run-loop.ts";

const PAGE = 500;
/** Events a slow reader may lag behind before it reads the journal instead. */
const CAPACITY = 1_000;

export interface FollowRequest {
  readonly topic: string;
  readonly filter: JournalFilter;
}

/**
 * What the journal has after `filter.afterSeq`, then what happens, with no gap and no duplicate.
 *
 * The subscription begins before the journal is read, and live events that were read already are
 * left out by `seq`. A reader that lags so far behind that its buffer overflows goes back to the
 * journal; it can lose liveness events only, which are in no journal. Ends by itself after the
 * terminal event of the job or composition it follows.
 */
export async function* followEvents(
  loop: RunLoop,
  store: StorePort,
  { topic, filter }: FollowRequest,
): AsyncGenerator<QueueEvent> {
  using reader = loop.events.stream.subscribe(topic, CAPACITY);
  let seen = filter.afterSeq ?? 0;
  for await (const event of withoutGaps(reader, (after) => journaled(store, filter, after))) {
    if (event.seq !== null && event.seq <= seen) continue;
    seen = event.seq ?? seen;
    yield event;
    if (isTerminalEvent(event, filter)) return;
  }

  /** The journal first, and again whenever the reader has lost something. */
  async function* withoutGaps(
    live: EventReader<QueueEvent>,
    read: (after: number) => AsyncGenerator<QueueEvent>,
  ): AsyncGenerator<QueueEvent> {
    let lost = live.dropped;
    yield* read(seen);
    for await (const event of live) {
      while (live.dropped > lost) {
        lost = live.dropped;
        yield* read(seen);
      }
      yield event;
    }
  }
}

async function* journaled(
  store: StorePort,
  filter: JournalFilter,
  afterSeq: number,
): AsyncGenerator<QueueEvent> {
  let after = afterSeq;
  for (;;) {
    const page = await store.queryJournal({ ...filter, afterSeq: after, limit: PAGE });
    for (const row of page) yield toQueueEvent(row);
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    after = last.seq;
  }
}
