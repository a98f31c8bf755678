//! The conformance suite of the store contract, over every driver.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "store/conformance.rs"]
mod conformance;
#[path = "store/cut_off.rs"]
mod cut_off;

use innkeeper_store::Store;
use innkeeper_store::postgres::PostgresStore;
use innkeeper_store::sqlite::SqliteStore;
use std::sync::Arc;
use tempfile::TempDir;

/// A store that is empty, and what must live as long as it.
async fn sqlite() -> (Arc<dyn Store>, Option<TempDir>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    (Arc::new(SqliteStore::open(folder.path()).expect("a new store")), Some(folder))
}

async fn postgres() -> (Arc<dyn Store>, Option<TempDir>) {
    let url = cluster::database().parse().expect("a URL");
    (Arc::new(PostgresStore::open(&url).await.expect("a new store")), None)
}

macro_rules! conformance {
    ($($case:ident)+) => {
        conformance!(sqlite: $($case)+);
        conformance!(postgres: $($case)+);
    };
    ($driver:ident: $($case:ident)+) => {
        mod $driver {
            $(
                #[tokio::test]
                async fn $case() {
                    let (store, _folder) = super::$driver().await;
                    super::conformance::$case(super::conformance::Fixture::new(store).await).await;
                }
            )+
        }
    };
}

conformance!(
    tokens_are_found_by_their_hash
    components_are_found_by_the_beginning_of_their_digest
    a_component_is_kept_as_long_as_a_task_names_it
    every_change_of_a_task_is_a_revision
    grants_that_grow_are_accepted_or_refused
    grants_of_changes_at_one_time_grow_one_by_one
    deleting_a_task_cancels_what_has_not_begun
    an_idempotency_key_names_one_run
    an_idempotency_key_is_free_again_after_7_days
    starts_of_a_batch_succeed_or_fail_by_themselves
    a_run_goes_from_start_to_success
    an_output_is_kept_whole_however_large_it_is
    a_large_output_under_an_old_lease_is_void
    a_failed_attempt_waits_for_its_next_time
    an_outcome_under_an_old_lease_is_void
    runs_of_a_lost_host_are_taken_up_again_three_times
    a_host_that_stops_hands_back_what_it_has
    a_cancel_ends_what_waits_and_asks_what_runs
    logs_are_in_order_and_written_once
    lists_come_in_pages
    a_due_trigger_starts_its_run_once
    a_trigger_does_not_overlap_itself
    skips_in_a_row_become_one_range
    a_run_keeps_the_skips_before_and_after_it_apart
    after_a_pause_nothing_is_created
    a_trigger_without_more_times_has_finished
    a_fixed_delay_goes_on_when_its_run_has_ended
    what_became_due_last_does_not_wait_for_what_is_due_the_longest
    a_fixed_delay_goes_on_when_its_run_is_cancelled_and_while_it_is_paused
    a_fixed_delay_ends_with_its_window
    a_trigger_starts_no_more_runs_than_it_may
    a_trigger_is_due_when_its_jitter_is_over
    times_of_another_edition_are_found_and_reckoned_anew
    skips_are_counted_by_reason
    events_are_kept_in_order_and_once
    an_event_starts_one_run_of_each_trigger
    events_of_a_pause_are_on_record
    every_event_of_a_batch_without_a_run_is_on_record
    what_is_gathered_waits_for_its_time
    a_task_comes_after_another_with_its_output
    what_comes_after_a_task_is_given_all_of_a_large_output
    an_end_that_nobody_waits_for_is_no_event
    tasks_that_come_after_each_other_are_no_loop
    runs_that_start_each_other_by_events_come_to_an_end
    old_events_go_but_for_those_that_a_trigger_waits_for
    skipped_times_and_reached_quotas_are_told
    what_comes_after_a_failure_is_given_that_failure
    triggers_that_have_nothing_to_do_go_on_together
    a_task_is_kept_while_another_comes_after_it
    a_webhook_starts_one_run_of_a_delivery
    a_webhook_starts_no_run_that_it_may_not
    a_secret_is_kept_while_a_trigger_verifies_with_it
    a_backfill_goes_through_its_times_in_order
    a_step_of_a_backfill_takes_place_once
    a_backfill_leaves_out_what_ran
    a_backfill_waits_for_what_passes
    a_cancelled_backfill_creates_no_run
    a_deleted_trigger_has_no_backfills
    a_backfill_and_its_trigger_do_not_stand_in_each_others_way
    what_the_trigger_comes_to_is_not_backfilled
    a_trigger_has_so_many_backfills
    an_old_backfill_goes
    a_run_that_has_not_begun_by_its_start_deadline_fails
    a_run_that_is_not_over_by_its_deadline_fails
    a_host_that_does_not_heed_a_cancel_loses_the_run
    many_runs_are_cancelled_in_one_commit
    a_run_that_failed_is_tried_again_by_hand
    a_retry_passes_what_a_start_passes
    a_retried_run_counts_for_its_trigger
    a_retried_run_counts_for_its_backfill
    a_run_has_labels_of_its_task_its_trigger_and_its_start
    runs_are_found_by_how_and_when_they_failed
    of_a_paused_tenant_nothing_begins
    a_paused_fleet_begins_nothing
    a_pause_can_cancel_what_is_queued
    tenants_do_not_see_each_other
    runs_go_to_hosts_that_have_what_they_require
    a_run_keeps_what_its_revision_requires
    a_host_that_is_not_active_claims_nothing
    a_lost_host_that_was_cordoned_is_so_when_it_comes_again
    a_host_hands_back_what_it_does_not_know
    a_host_that_is_gone_has_no_orders
    an_upload_goes_on_where_it_stopped
    uploads_of_tenants_are_their_own
    a_tenant_begins_so_many_uploads
    retention_takes_old_runs_in_steps
    retention_takes_logs_before_their_runs
    retention_takes_long_logs_in_pieces
    retention_goes_on_where_one_log_is_longer_than_a_step
    retention_takes_skips_and_uploads
    retention_takes_bytes_that_nobody_names
    a_deleted_task_stays_as_long_as_a_run_does
    a_suspended_tenant_begins_nothing
    triggers_and_components_are_counted
    stored_bytes_are_those_of_the_rows
    nothing_is_begun_over_the_stored_bytes
    over_the_stored_bytes_runs_wait_for_room
    starts_come_at_their_rate
    the_cpu_time_of_a_day_runs_out_and_begins_anew
    so_many_runs_at_one_time_and_not_more
    claims_are_shared_between_tenants
    what_ends_goes_on_its_bill
    a_lost_host_costs_nothing
    a_deleted_tenant_leaves_nothing
    a_tenant_is_made_changed_and_deleted
    a_deleted_tenant_has_nothing_and_its_runs_are_ended
    a_tenant_is_told_what_it_uses
    a_token_is_what_it_was_made_as
    a_token_is_good_until_it_expires_or_is_revoked
    tokens_are_listed_the_newest_first
    a_tenant_has_so_many_tokens_that_are_good
    a_secret_is_kept_while_a_task_names_it
    secrets_of_tenants_are_their_own
    a_secret_is_sealed_anew_unless_it_has_changed
    a_holiday_calendar_is_kept_while_a_trigger_excludes_it
    holiday_calendars_of_tenants_are_their_own_and_so_many
    a_due_trigger_is_given_the_dates_that_it_excludes
    a_forecast_is_given_what_is_not_finished
    every_change_is_on_record
    what_changes_nothing_is_not_on_record
    the_audit_log_is_listed_the_newest_first
    a_value_that_is_too_long_is_left_out_of_the_record
    a_task_has_no_more_memory_than_its_tenant_may_have
    lists_show_only_what_is_of_some_tasks
    so_many_runs_of_a_task_execute_at_one_time
    runs_of_the_same_key_wait_for_each_other
    a_rate_lets_attempts_begin_one_after_another
    a_rate_is_of_attempts_that_begin
    the_highest_priority_begins_first
    limits_are_the_tasks_of_now
    a_lost_host_gives_its_slots_back
    what_waits_is_cancelled_and_deleted
    a_paused_task_begins_nothing
    a_paused_run_is_held_until_it_is_resumed
    buffered_runs_wait_for_those_before_them
    a_buffer_for_all_is_in_order
    what_another_clock_made_ready_passes_when_it_is
    limits_of_many_runs_change
    what_nobody_can_execute_is_not_in_the_way_of_a_rate
    the_new_run_cancels_the_others
    what_waits_is_not_claimed_with_what_is_free
    a_tenant_begins_so_many_attempts_in_a_second
);

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_reopening() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || Arc::new(SqliteStore::open(folder.path()).expect("the store"));
    let fixture = conformance::Fixture::new(open()).await;
    let run = fixture.start("one").await;
    fixture.claim(1).await;
    drop(fixture);
    let again = conformance::Fixture::new(open()).await;
    // The fixture's host is a new one, so the run of the old one was taken up again.
    let found = again.run(run).await;
    assert_eq!((found.state.as_str(), found.attempts.len()), ("queued", 1));
    assert_eq!(again.claim(10).await.len(), 1);
}
