// Every fixed value of the shim: names, limits, deadlines and the sentences that a model or a user may read.
// The deadlines lie below the gateway's own (15 s for its gating hooks), so that the gateway never decides for us.

export const PLUGIN_ID = "safety-wrapper";
export const POLICY_ID = "safety-wrapper-gate";
/** The only gateway whose hooks were observed; another one is refused (an unknown hook name is only a warning there). */
export const GATEWAY_VERSION = "2026.9.6";
/** Lowest: other handlers come first, so what we return is what runs. */
export const LAST = -1_000_000;

export const MAX_FRAME_BYTES = 1024 * 1024;
export const MAX_IN_FLIGHT = 32;
/** Requests that nobody waits for leave room for those that somebody does. */
export const MAX_OBSERVING = 16;
export const MAX_RESULT_CHARS = 16_000;
export const MAX_REASON_CHARS = 2_000;
export const MAX_DEPTH = 48;
export const MAX_REMEMBERED = 4096;

export const HELLO_MS = 2_000;
export const HOOK_MS = 5_000;
export const OBSERVE_MS = 5_000;
export const EXECUTE_MS = 75_000;
export const SYNC_MS = 50;
export const RUN_READY_MS = 2_000;
/** What the gateway is told to allow us; only reached if our own deadline fails. */
export const GATEWAY_HOOK_MS = 10_000;
export const RECONNECT_MS = [50, 100, 250, 500, 1_000, 2_000];

const TELL = "Tell the user; do not repeat the call.";

/** Why a call was refused by the shim itself, without the core's decision. */
export const REFUSED = {
  away: `Refused: the safety engine is not running, so nothing was run. ${TELL} It is started with "safety-wrapper up".`,
  late: `Refused: the safety engine did not answer in time, so nothing was run. ${TELL}`,
  lost: `Refused: the connection to the safety engine broke, so nothing was run. ${TELL}`,
  odd: `Refused: the safety engine gave an answer that can't be trusted, so it counts as a refusal. ${TELL}`,
  busy: "Refused: too many calls at once, so this one was not run. Wait for the others to end, then try again.",
  not_ready: `Refused: the safety engine does not accept this gateway as it is installed. ${TELL} Next step: "safety-wrapper openclaw doctor".`,
  no_run: "Refused: this call belongs to no agent run, so nobody can answer for it.",
  not_ours: "Refused: only the sw_ tools may be used here.",
  malformed: "Refused: the arguments can't be read safely (too deep, too large, or with broken characters or numbers). Send simpler arguments.",
  error: `Refused: the safety engine could not handle this call, so nothing was run. ${TELL}`,
  aborted: "Error: the call was cancelled by the user.",
};
/** For a call that the core had received when the answer failed to come. */
export const MAY_HAVE_RUN = {
  late: `Error: the safety engine did not answer in time. The call was cancelled, but it may have run in part. ${TELL}`,
  lost: `Error: the safety engine went away during this call, which may have run in part. ${TELL}`,
  odd: `Error: the safety engine gave an answer that can't be trusted. The call may have run. ${TELL}`,
  error: `Error: the safety engine failed during this call, which may have run in part. ${TELL}`,
};
/** Stands where a text could not be checked. */
export const WITHHELD = "[withheld by safety-wrapper: this text could not be checked]";
export const WITHHELD_PART = "[withheld by safety-wrapper: a part that is not text]";
/** What the person reads whose message could not be handled. */
export const RUN_BLOCKED =
  'The safety engine is not ready, so the agent does nothing. On the server run "safety-wrapper status"; it says what to do.';
