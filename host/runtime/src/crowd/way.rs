//! How a thread gives way to all others. It works only when a processor has nothing else to do (`SCHED_IDLE`), and whoever
//! wakes up takes that from it. That isn't enough, for two reasons.
//!
//! Linux shares a processor among groups first (a session's, a service's or a container's threads), and only inside of one
//! among threads. To who is in no group of ours, a thread of the kernel's as well, ours is one that works like any other
//! for as long as one of these threads does: the one that tells the disk to flush, without which nothing is committed, may
//! so wait for the clock's next tick or the one after that, up to 8 ms. Yielding doesn't help, for that only says who of the
//! group is next; sleeping does. And also inside of a group some kernels (since Linux 6.6) let one that has worked just
//! before wait for a tick, unless they are asked to choose again.
//!
//! So each of these threads is interrupted once in a while to sleep a little: by a timer of its own whose signal does
//! nothing else. That also interrupts what looks at no epoch, as the filling of a large memory, and the host's own part in a
//! guest's calls: whoever waits for a lock that is held there may have to wait for that little more.
//!
//! On Linux that is each thread's own affair, and everybody may do it; elsewhere it isn't done. What such a thread started,
//! threads or processes, would give way for ever: it should start none.

#[cfg(target_os = "linux")]
use alarm::Alarm;
#[cfg(target_os = "linux")]
use std::sync::Once;

/// Whether it was told that it can't be done.
#[cfg(target_os = "linux")]
static TOLD: Once = Once::new();

/// A thread's way of giving way.
pub(super) struct Way {
    #[cfg(target_os = "linux")]
    alarm: Option<Alarm>,
}

impl Way {
    /// From now on this thread gives way.
    pub fn give() -> Self {
        #[cfg(target_os = "linux")]
        {
            let (idle, alarm) = (alarm::idle(), Alarm::new());
            if let Some(error) = idle.as_ref().err().or(alarm.as_ref().err()) {
                TOLD.call_once(|| {
                    tracing::warn!(%error, "the host may have to wait for long guests, for milliseconds at a time");
                });
            }
            Self { alarm: alarm.ok() }
        }
        #[cfg(not(target_os = "linux"))]
        Self {}
    }

    /// This thread works as any other.
    pub fn keep() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            alarm: None,
        }
    }

    /// Does what takes long, while others get their turn. What others wait for should not be held meanwhile.
    pub fn while_giving<T>(&self, work: impl FnOnce() -> T) -> T {
        #[cfg(target_os = "linux")]
        let _ringing = self.alarm.as_ref().map(Alarm::ring);
        work()
    }
}

#[cfg(target_os = "linux")]
mod alarm {
    #![allow(unsafe_code)]

    use crate::meter::thread_clock;
    use rustix::thread::{Timespec, nanosleep, set_current_timer_slack};
    use std::cell::Cell;
    use std::io;
    use std::marker::PhantomData;
    use std::mem::{MaybeUninit, zeroed};
    use std::num::NonZeroU64;
    use std::ptr::{null, null_mut};
    use std::time::Duration;

    /// How often a thread sleeps, and for how long: enough to be off its processor, whatever that does then. With the time
    /// that it takes to go and to come back, it costs about a fifth of what could be worked.
    const AGAIN: Duration = Duration::from_micros(300);
    const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000 };

    /// Ignored where nobody handles it, and so by debuggers too.
    const SIGNAL: libc::c_int = libc::SIGURG;

    /// A timer of the thread that made it. It stays there.
    pub struct Alarm {
        timer: libc::timer_t,
        /// When it rings next, once it goes on.
        left: Cell<Duration>,
        _of_this_thread: PhantomData<*const ()>,
    }

    /// It goes until this is dropped.
    pub struct Ringing<'a>(&'a Alarm);

    /// This thread works only when a processor has nothing else to do.
    pub fn idle() -> io::Result<()> {
        // All that the kernel's `sched_param` has; C libraries may have more in it. musl's function only says that it can't.
        let priority: libc::c_int = 0;
        // SAFETY: it reads the priority, and changes nothing but how this thread is scheduled.
        let set =
            unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const priority) };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    thread_local! {
        /// What the thread had worked when it last slept.
        static WORKED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Sleeps, unless the thread hardly got to work since it last did: it may have had to wait for its processor for so long
    /// that the timer rang again. Only calls the kernel, as a handler may, and leaves `errno` as it is.
    extern "C" fn sleep(_signal: libc::c_int) {
        // SAFETY: the thread's own, as long as it is there.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let before = unsafe { *errno };
        let worked = thread_clock();
        if worked.saturating_sub(WORKED.get()) >= AGAIN / 2 {
            #[cfg(test)]
            tests::SLEPT.with(|slept| slept.set(slept.get() + 1));
            WORKED.set(worked);
            let _ = nanosleep(&NAP);
        }
        // SAFETY: as above.
        unsafe { *errno = before };
    }

    /// Handles the signal, unless somebody else does.
    fn handle() -> io::Result<()> {
        let ours = sleep as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: all zeros are an action; these calls only read and write what they are given.
        unsafe {
            let mut before: libc::sigaction = zeroed();
            checked(libc::sigaction(SIGNAL, null(), &raw mut before))?;
            match before.sa_sigaction {
                handler if handler == ours => return Ok(()),
                libc::SIG_DFL | libc::SIG_IGN => {}
                _ => return Err(io::Error::other("another handler has the signal SIGURG")),
            }
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = ours;
            // On the stack that there is for wasmtime's own handlers: a guest may be at the end of its own.
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            checked(libc::sigaction(SIGNAL, &raw const action, null_mut()))
        }
    }

    impl Alarm {
        pub fn new() -> io::Result<Self> {
            handle()?;
            // Otherwise it would sleep for 50 us more.
            set_current_timer_slack(Some(NonZeroU64::MIN))?;
            let mut timer = MaybeUninit::uninit();
            // SAFETY: all zeros are an event; the timer is there if the call says so.
            let timer = unsafe {
                let mut event: libc::sigevent = zeroed();
                event.sigev_notify = libc::SIGEV_THREAD_ID;
                event.sigev_signo = SIGNAL;
                event.sigev_notify_thread_id = libc::gettid();
                checked(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr()))?;
                timer.assume_init()
            };
            Ok(Self { timer, left: Cell::new(AGAIN), _of_this_thread: PhantomData })
        }

        /// Goes on where it was stopped, so that it also rings for who works often and never for long.
        pub fn ring(&self) -> Ringing<'_> {
            self.set(self.left.get());
            Ringing(self)
        }

        fn stop(&self) {
            let left = self.set(Duration::ZERO);
            self.left.set(if left.is_zero() { AGAIN } else { left });
        }

        /// Rings after this time and then again and again; not at all if that is zero. Says when it would have rung.
        fn set(&self, first: Duration) -> Duration {
            let of = |time: Duration| libc::timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
            let times = libc::itimerspec { it_interval: of(AGAIN), it_value: of(first) };
            let mut before = MaybeUninit::zeroed();
            // SAFETY: the timer is there until this is dropped. With such times it doesn't fail, and all zeros are times.
            let before: libc::itimerspec = unsafe {
                libc::timer_settime(self.timer, 0, &raw const times, before.as_mut_ptr());
                before.assume_init()
            };
            Duration::from_nanos(before.it_value.tv_nsec.try_into().unwrap_or(0)).min(AGAIN)
        }
    }

    impl Drop for Ringing<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }

    impl Drop for Alarm {
        fn drop(&mut self) {
            // SAFETY: nobody has it any more.
            unsafe { libc::timer_delete(self.timer) };
        }
    }

    fn checked(result: libc::c_int) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[cfg(test)]
    mod tests {
        use super::super::Way;
        use super::*;
        use std::time::Instant;

        thread_local! {
            /// How often the thread has slept.
            pub static SLEPT: Cell<u64> = const { Cell::new(0) };
        }

        fn slept() -> u64 {
            SLEPT.with(Cell::get)
        }

        /// In a thread of its own: what it does to that stays.
        fn giving(test: fn(&Way)) {
            std::thread::spawn(move || test(&Way::give())).join().unwrap();
        }

        fn work(until: impl Fn() -> bool) -> bool {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(60) && !until() {}
            until()
        }

        #[test]
        fn a_thread_sleeps_while_it_works() {
            giving(|way| {
                assert_eq!(slept(), 0);
                assert!(way.while_giving(|| work(|| slept() > 10)));
                let (before, begun) = (slept(), thread_clock());
                assert!(work(|| thread_clock() > begun + 20 * AGAIN));
                assert_eq!(slept(), before);
                let _another = Alarm::new().expect("the handler is its own");
            });
        }

        #[test]
        fn a_thread_sleeps_that_never_works_for_long() {
            giving(|way| {
                assert!(work(|| {
                    way.while_giving(|| ());
                    slept() > 10
                }));
            });
        }

        #[test]
        fn it_works_between_two_naps() {
            giving(|way| {
                let begun = thread_clock();
                assert!(way.while_giving(|| work(|| slept() > 100)));
                assert!(thread_clock() - begun > 50 * AGAIN);
            });
        }
    }
}
