/** Columns of `journal.db` as SQLite holds them; `rows.ts` turns them into records. */
export interface JournalTable {
  seq: number;
  event_id: string;
  ts: string;
  event_type: string;
  run_id: string | null;
  job_id: string | null;
  composition_id: string | null;
  node_id: string | null;
  capability_instance_id: string | null;
  capability_name: string | null;
  config_hash: string | null;
  task_name: string | null;
  method: string | null;
  worker_session_id: string | null;
  actor: string | null;
  worker_reported: number;
  payload: string;
}

export interface JobTable {
  seq: number;
  id: string;
  capability_instance_id: string;
  capability_name: string | null;
  action: string | null;
  task_name: string | null;
  method: string | null;
  kwargs: string;
  control: string;
  priority: number;
  status: string;
  submitted_at: string;
  started_at: string | null;
  completed_at: string | null;
  attempt: number;
  retry_count: number;
  max_retries: number;
  timeout_ms: number | null;
  composition_id: string | null;
  node_id: string | null;
  item_index: number | null;
  run_id: string | null;
  actor: string | null;
  result: string | null;
  result_file: string | null;
  error: string | null;
  block_reason: string | null;
  cancel_requested_at: string | null;
  cancel_phase: string | null;
  config_hash: string | null;
  profile_key: string | null;
  input_bucket: number | null;
  vram_limit_mb: number | null;
  progress: number | null;
  status_message: string | null;
  worker_session_id: string | null;
}

export interface CompositionRunTable {
  seq: number;
  id: string;
  name: string | null;
  spec: string;
  status: string;
  fail_fast: number;
  priority: number;
  run_id: string | null;
  actor: string | null;
  cancel_requested: number;
  submitted_at: string;
  completed_at: string | null;
}

export interface NodeRunTable {
  composition_id: string;
  node_id: string;
  item_index: number;
  state: string;
  job_id: string | null;
  result: string | null;
  result_file: string | null;
  error: string | null;
  skip_cause: string | null;
  provenance: string;
}

export interface ForEachItemsTable {
  composition_id: string;
  node_id: string;
  count: number;
  items: string | null;
  items_file: string | null;
}

export interface ProfileTable {
  key: string;
  capability: string;
  body: string;
  updated_at: string;
}

export interface InstanceConfigTable {
  instance_id: string;
  capability_name: string;
  config: string;
  enabled: number;
  updated_at: string;
}

export interface ResultCacheTable {
  key: string;
  capability_name: string;
  composition_id: string | null;
  node_id: string | null;
  job_id: string | null;
  result: string | null;
  result_file: string | null;
  outputs: string;
  created_at: string;
}

export interface JournalSchema {
  journal: JournalTable;
  job: JobTable;
  composition_run: CompositionRunTable;
  node_run: NodeRunTable;
  for_each_items: ForEachItemsTable;
  profile: ProfileTable;
  instance_config: InstanceConfigTable;
  result_cache: ResultCacheTable;
}
