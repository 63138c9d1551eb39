import { sql, type Kysely } from "kysely";
import type { Migration } from "kysely/migration";

/** Columns that may be long come last: a filter on another one need not read past them. */
const TABLES = [
  // Rows are never deleted, so the plain rowid grows for ever: AUTOINCREMENT would only add a write.
  sql`create table journal (
    seq integer primary key,
    event_id text not null,
    ts text not null,
    event_type text not null,
    run_id text,
    job_id text,
    composition_id text,
    node_id text,
    capability_instance_id text,
    capability_name text,
    config_hash text,
    task_name text,
    method text,
    worker_session_id text,
    actor text,
    worker_reported integer not null default 0,
    payload text not null default '{}'
  )`,
  sql`create index journal_job on journal (job_id) where job_id is not null`,
  sql`create index journal_composition on journal (composition_id) where composition_id is not null`,
  // Few rows, which a short command looks for in a journal of any length.
  sql`create index journal_start on journal (seq) where event_type = 'worker_ready'`,
  sql`create trigger journal_no_update before update on journal
    begin select raise(abort, 'the journal is append-only'); end`,
  sql`create trigger journal_no_delete before delete on journal
    begin select raise(abort, 'the journal is append-only'); end`,

  sql`create table job (
    seq integer primary key,
    id text not null unique,
    capability_instance_id text not null,
    capability_name text,
    action text,
    task_name text,
    method text,
    priority integer not null,
    status text not null check (status in ('pending', 'running', 'completed', 'failed', 'cancelled')),
    submitted_at text not null,
    started_at text,
    completed_at text,
    attempt integer not null default 0,
    retry_count integer not null default 0,
    max_retries integer not null default 0,
    timeout_ms real,
    composition_id text,
    node_id text,
    item_index integer,
    run_id text,
    actor text,
    block_reason text,
    cancel_requested_at text,
    cancel_phase text,
    config_hash text,
    profile_key text,
    input_bucket real,
    vram_limit_mb real,
    progress real,
    status_message text,
    worker_session_id text,
    result_file text,
    control text not null,
    error text,
    kwargs text not null,
    result text
  )`,
  sql`create index job_composition on job (composition_id) where composition_id is not null`,
  // Keeps a start after a crash independent of how long the history is.
  sql`create index job_unfinished on job (status) where status in ('pending', 'running')`,

  sql`create table composition_run (
    seq integer primary key,
    id text not null unique,
    name text,
    status text not null check (status in ('running', 'completed', 'failed', 'cancelled')),
    fail_fast integer not null,
    priority integer not null,
    run_id text,
    actor text,
    cancel_requested integer not null default 0,
    submitted_at text not null,
    completed_at text,
    spec text not null
  )`,
  sql`create index composition_unfinished on composition_run (status) where status = 'running'`,
  sql`create table node_run (
    composition_id text not null,
    node_id text not null,
    item_index integer not null default -1,
    state text not null check
      (state in ('pending', 'running', 'completed', 'failed', 'cancelled', 'skipped')),
    job_id text,
    skip_cause text check (skip_cause in ('when', 'upstream')),
    result_file text,
    error text,
    provenance text not null default '{}',
    result text,
    primary key (composition_id, node_id, item_index)
  ) without rowid`,
  sql`create table for_each_items (
    composition_id text not null,
    node_id text not null,
    count integer not null,
    items text,
    items_file text,
    primary key (composition_id, node_id)
  ) without rowid`,

  sql`create table profile (
    key text primary key,
    capability text not null,
    body text not null,
    updated_at text not null
  ) without rowid`,
  sql`create table instance_config (
    instance_id text primary key,
    capability_name text not null,
    config text not null,
    enabled integer not null,
    updated_at text not null
  ) without rowid`,
  sql`create table result_cache (
    key text primary key,
    capability_name text not null,
    composition_id text,
    node_id text,
    job_id text,
    result text,
    result_file text,
    outputs text not null default '{}',
    created_at text not null
  ) without rowid`,
];

export const initial: Migration = {
  async up(db: Kysely<unknown>): Promise<void> {
    for (const statement of TABLES) await statement.execute(db);
  },
};
