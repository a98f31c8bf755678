//! The crowd: threads for guests that take long. They give way to all that the host itself does, and share what is
//! left by tenant: who goes next is of the tenant that has worked least. A guest that is soon done never comes here.
//!
//! How they give way is told in [`way`]. When a host never has nothing to do, one more thread sees to it that the crowd
//! comes on.

mod way;

use crate::meter::{nanos, thread_clock};
use futures::FutureExt;
use futures::future::BoxFuture;
use innkeeper_domain::ids::TenantId;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use way::Way;

/// How often it is looked whether the crowd comes on.
const LOOK: Duration = Duration::from_millis(50);

/// Threads that poll what is long.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A member left without a word: it panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    /// How often a member was polled.
    polls: AtomicU64,
}

#[derive(Default)]
struct Queue {
    tenants: HashMap<TenantId, Share>,
    /// Those of them who have somebody ready, by how much they have worked.
    next: BTreeSet<(u64, TenantId)>,
    /// What the tenant had worked that was chosen last: who comes or comes back begins there, for nobody saves up.
    worked_least: u64,
    stopped: bool,
}

/// A tenant in the crowd.
#[derive(Default)]
struct Share {
    ready: VecDeque<Arc<Member>>,
    /// Nanoseconds that its members worked, since an instant that is the same for all.
    worked: u64,
    /// Members, ready or not.
    members: usize,
}

struct Member {
    tenant: TenantId,
    crowd: Arc<Shared>,
    handle: Handle,
    state: Mutex<State>,
    /// None once it is over. Locked by whoever polls it, and by nobody for long.
    future: Mutex<Option<BoxFuture<'static, ()>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asleep,
    Ready,
    /// Being polled; `woken` if it is to be polled again.
    Working {
        woken: bool,
    },
    Over,
}

/// Takes a member out of the crowd when nobody waits for it any more.
struct Ticket(Arc<Member>);

impl Crowd {
    /// As many threads as there are processors, and one that looks after them.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::new());
        let mut crowd = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        for number in 0..processors() {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("crowd-{number}"));
            crowd.threads.push(thread.spawn(move || {
                shared.work(&Way::give());
            })?);
        }
        let thread = thread::Builder::new().name("crowd-reserve".into());
        crowd.threads.push(thread.spawn(move || shared.look_after())?);
        Ok(crowd)
    }

    /// Goes on with a future among the others of its tenant. Dropping this one drops that, at the latest when it next
    /// yields.
    pub async fn go_on<T: Send + 'static>(
        &self,
        tenant: TenantId,
        future: BoxFuture<'static, T>,
    ) -> Result<T, Panicked> {
        let (sender, receiver) = oneshot::channel();
        let future = async move {
            // Nobody may wait any more.
            let _ = sender.send(future.await);
        };
        let member = Arc::new(Member {
            tenant,
            crowd: Arc::clone(&self.shared),
            handle: Handle::current(),
            state: Mutex::new(State::Asleep),
            future: Mutex::new(Some(future.boxed())),
        });
        self.shared.queue().tenants.entry(tenant).or_default().members += 1;
        let _ticket = Ticket(Arc::clone(&member));
        member.wake();
        receiver.await.map_err(|_| Panicked)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.queue().stopped = true;
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            // What panics in it is caught.
            let _ = thread.join();
        }
    }
}

/// How many threads can be in the middle of a guest's work: those that work, and the one that looks after them.
pub(crate) fn threads() -> usize {
    processors() + 1
}

/// How many processors there are.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Shared {
    fn new() -> Self {
        Self { queue: Mutex::default(), ready: Condvar::new(), polls: AtomicU64::new(0) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, way: &Way) {
        while let Some(member) = self.next() {
            self.poll(&member, way);
        }
    }

    fn poll(&self, member: &Arc<Member>, way: &Way) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let begun = thread_clock();
        member.poll(way);
        let took = thread_clock().saturating_sub(begun);
        self.queue().worked(member.tenant, nanos(took));
        // So that the kernel chooses anew: somebody may wait for the processor.
        thread::yield_now();
    }

    /// Polls once in a while if nobody else does.
    fn look_after(&self) {
        let mut seen = 0;
        loop {
            thread::sleep(LOOK);
            let polls = self.polls.load(Ordering::Relaxed);
            let stands_still = std::mem::replace(&mut seen, polls) == polls;
            let member = {
                let mut queue = self.queue();
                if queue.stopped {
                    return;
                }
                if stands_still { queue.take() } else { None }
            };
            if let Some(member) = member {
                self.poll(&member, &Way::keep());
                seen += 1;
            }
        }
    }

    /// Waits for somebody who is ready; none when there is no more work.
    fn next(&self) -> Option<Arc<Member>> {
        let mut queue = self.queue();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(member) = queue.take() {
                return Some(member);
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queue {
    fn put(&mut self, member: Arc<Member>) {
        let (tenant, least) = (member.tenant, self.worked_least);
        let Some(share) = self.tenants.get_mut(&tenant) else { return };
        if share.ready.is_empty() {
            share.worked = share.worked.max(least);
            self.next.insert((share.worked, tenant));
        }
        share.ready.push_back(member);
    }

    fn take(&mut self) -> Option<Arc<Member>> {
        let (worked, tenant) = self.next.pop_first()?;
        self.worked_least = worked;
        let share = self.tenants.get_mut(&tenant)?;
        let member = share.ready.pop_front();
        if !share.ready.is_empty() {
            self.next.insert((worked, tenant));
        }
        member
    }

    fn worked(&mut self, tenant: TenantId, nanos: u64) {
        let Some(share) = self.tenants.get_mut(&tenant) else { return };
        let waits = self.next.remove(&(share.worked, tenant));
        share.worked += nanos;
        if waits {
            self.next.insert((share.worked, tenant));
        }
    }

    fn leave(&mut self, tenant: TenantId) {
        let Some(share) = self.tenants.get_mut(&tenant) else { return };
        share.members -= 1;
        if share.members == 0 {
            self.next.remove(&(share.worked, tenant));
            self.tenants.remove(&tenant);
        }
    }
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(self: &Arc<Self>, way: &Way) {
        {
            let mut state = self.state();
            if *state == State::Over {
                return;
            }
            *state = State::Working { woken: false };
        }
        // Timers and connections are the runtime's that it came from.
        let _context = self.handle.enter();
        let waker = Waker::from(Arc::clone(self));
        let mut future = self.future.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = future.as_mut().map_or(Poll::Ready(()), |future| {
            let poll = || way.while_giving(|| future.as_mut().poll(&mut Context::from_waker(&waker)));
            // Whoever waits for it learns that it is gone.
            std::panic::catch_unwind(AssertUnwindSafe(poll)).unwrap_or(Poll::Ready(()))
        });
        let mut state = self.state();
        match (polled, *state) {
            (Poll::Pending, State::Working { woken: true }) => {
                *state = State::Ready;
                drop(state);
                drop(future);
                self.make_ready();
            }
            (Poll::Pending, State::Working { woken: false }) => *state = State::Asleep,
            _ => {
                *state = State::Over;
                drop(state);
                let over = future.take();
                drop(future);
                drop_quietly(over);
            }
        }
    }

    fn make_ready(self: &Arc<Self>) {
        self.crowd.queue().put(Arc::clone(self));
        self.crowd.ready.notify_one();
    }
}

/// What panics while it is dropped ends no thread.
fn drop_quietly(future: Option<BoxFuture<'static, ()>>) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| drop(future))).is_err() {
        tracing::error!("the host panicked while it cleared up after a guest");
    }
}

impl Wake for Member {
    fn wake(self: Arc<Self>) {
        let mut state = self.state();
        match *state {
            State::Asleep => {
                *state = State::Ready;
                drop(state);
                self.make_ready();
            }
            State::Working { .. } => *state = State::Working { woken: true },
            State::Ready | State::Over => {}
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let member = &self.0;
        let before = std::mem::replace(&mut *member.state(), State::Over);
        member.crowd.queue().leave(member.tenant);
        // Who polls it now drops it; a future is not waited for here.
        if !matches!(before, State::Working { .. }) {
            let future = member.future.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop_quietly(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::Timestamp;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::Instant;

    fn tenant() -> TenantId {
        TenantId::new(Timestamp::UNIX_EPOCH)
    }

    /// Works for so long in all, in pieces of a millisecond.
    async fn work(duration: Duration) {
        let mut worked = Duration::ZERO;
        while worked < duration {
            let piece = Instant::now();
            while piece.elapsed() < Duration::from_millis(1) {
                std::hint::spin_loop();
            }
            worked += piece.elapsed();
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_goes_on_there_comes_to_its_end() {
        let crowd = Crowd::start().unwrap();
        let sleeps = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            work(Duration::from_millis(3)).await;
            7
        };
        assert_eq!(crowd.go_on(tenant(), sleeps.boxed()).await.unwrap(), 7);
        let panics = async { panic!("on purpose") };
        assert!(crowd.go_on::<()>(tenant(), panics.boxed()).await.is_err());
        assert_eq!(crowd.go_on(tenant(), async { 8 }.boxed()).await.unwrap(), 8);
        assert!(crowd.shared.queue().tenants.is_empty());
    }

    /// Counts when it is dropped.
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn who_is_not_waited_for_any_more_is_gone() {
        let crowd = Crowd::start().unwrap();
        let dropped = Arc::new(AtomicUsize::new(0));
        let endless = |works: bool| {
            let dropped = Dropped(Arc::clone(&dropped));
            async move {
                let _dropped = dropped;
                loop {
                    if works { work(Duration::from_secs(1)).await } else { std::future::pending().await }
                }
            }
        };
        let one = tenant();
        for works in [true, false, true, false] {
            let member = crowd.go_on::<()>(one, endless(works).boxed());
            assert!(tokio::time::timeout(Duration::from_millis(20), member).await.is_err());
        }
        while dropped.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(crowd.shared.queue().tenants.is_empty() && crowd.shared.queue().next.is_empty());
    }

    #[test]
    fn the_tenant_that_has_worked_least_goes_next() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let shared = Arc::new(Shared::new());
        let member = |tenant| {
            shared.queue().tenants.entry(tenant).or_default().members += 1;
            Arc::new(Member {
                tenant,
                crowd: Arc::clone(&shared),
                handle: runtime.handle().clone(),
                state: Mutex::new(State::Asleep),
                future: Mutex::new(None),
            })
        };
        let (many, few) = (tenant(), tenant());
        let members: Vec<_> = (0..20).map(|_| member(many)).collect();
        members.iter().for_each(|member| Arc::clone(member).wake());
        // It has worked for long before the other comes, which isn't made up for.
        for _ in 0..10 {
            let member = shared.next().unwrap();
            shared.queue().worked(member.tenant, 1_000);
            *member.state() = State::Asleep;
            member.wake();
        }
        let alone = member(few);
        Arc::clone(&alone).wake();
        let mut turns = HashMap::from([(many, 0_u32), (few, 0)]);
        for _ in 0..100 {
            let member = shared.next().unwrap();
            *turns.get_mut(&member.tenant).unwrap() += 1;
            shared.queue().worked(member.tenant, 1_000);
            *member.state() = State::Asleep;
            member.wake();
        }
        assert!(turns[&many].abs_diff(turns[&few]) <= 2, "{turns:?}");
    }

    #[tokio::test]
    async fn a_member_that_is_woken_while_it_works_works_again() {
        let crowd = Crowd::start().unwrap();
        let first = AtomicBool::new(true);
        let wakes_itself = std::future::poll_fn(move |context| {
            if first.swap(false, Ordering::SeqCst) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        crowd.go_on(tenant(), wakes_itself.boxed()).await.unwrap();
    }
}
