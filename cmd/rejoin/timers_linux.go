package main

// Go's runtime looks after its threads on a timer of 20 µs for as long as there is
// work, and each time costs a switch of threads: a fifth of the CPU time of a server
// that is half busy. With this slack the kernel lets that timer, like any other,
// be up to a millisecond late, and the thread comes as seldom.
//
// Threads have the slack of the one that made them (prctl(2)), and the runtime's is
// made before Go code runs. So it is set before that.

// #include <sys/prctl.h>
//
// __attribute__((constructor)) static void slacken_timers(void) {
// 	prctl(PR_SET_TIMERSLACK, 1000000UL, 0UL, 0UL, 0UL);
// }
import "C"
