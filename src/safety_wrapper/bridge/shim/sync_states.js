// The shared words of the synchronous bridge. STATE goes
//   IDLE → REQUEST (gateway) → TAKEN (worker) → DONE | FAILED (worker) → IDLE (gateway)
// and from REQUEST or TAKEN to ABANDONED when the gateway's budget is spent; the worker then makes it IDLE again.
export const STATE = 0;
export const LENGTH = 1;
export const LINK = 2; // 1 while the worker's connection is greeted and ready
export const WORDS = 4;

export const IDLE = 0;
export const REQUEST = 1;
export const TAKEN = 2;
export const DONE = 3;
export const FAILED = 4;
export const ABANDONED = 5;
