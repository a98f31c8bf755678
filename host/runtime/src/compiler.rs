//! From uploaded bytes to a component that is ready to run: inspected once, compiled once, pre-linked and
//! kept by digest.

mod process;
mod shelf;

use crate::artifact::{Artifacts, Loaded};
use crate::bindings::TaskPre;
use crate::guest::Guest;
use crate::{CompileWith, ComponentSource};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use innkeeper_domain::component::{Digest, Inspected, Refusal, Shape};
use innkeeper_domain::limits::{ARTIFACTS_READ_MAX, COMPILATIONS_MAX};
use process::Compiled;
use shelf::Shelf;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2::bindings::CommandPre;

/// A component that only needs to be instantiated.
#[derive(Clone)]
pub(crate) enum Ready {
    Handler(TaskPre<Guest>),
    Command(CommandPre<Guest>),
}

/// A component that was made ready.
struct Made {
    ready: Ready,
    inspected: Inspected,
    memory_bytes: u64,
}

type Making = Shared<BoxFuture<'static, Result<Ready, String>>>;

/// Makes components ready.
pub(crate) struct Compiler {
    linker: Linker<Guest>,
    artifacts: Artifacts,
    components: Arc<dyn ComponentSource>,
    with: CompileWith,
    /// Of uploads.
    inspecting: Semaphore,
    /// Of what runs wait for, which uploads can't keep waiting.
    compiling: Semaphore,
    reading: Semaphore,
    /// Of what goes to other hosts, and comes from them, which may take long.
    sharing: Semaphore,
    /// What runs wait for. It is made though they are over meanwhile: the next one has it.
    making: Mutex<HashMap<Digest, Making>>,
    tasks: TaskTracker,
    compilations: AtomicU64,
    shelf: Mutex<Shelf<Ready>>,
}

impl Compiler {
    pub fn new(
        linker: Linker<Guest>,
        artifacts: Artifacts,
        components: Arc<dyn ComponentSource>,
        with: CompileWith,
    ) -> Self {
        Self {
            linker,
            artifacts,
            components,
            with,
            inspecting: Semaphore::new(COMPILATIONS_MAX),
            compiling: Semaphore::new(COMPILATIONS_MAX),
            reading: Semaphore::new(ARTIFACTS_READ_MAX),
            sharing: Semaphore::new(ARTIFACTS_READ_MAX),
            making: Mutex::default(),
            tasks: TaskTracker::new(),
            compilations: AtomicU64::new(0),
            shelf: Mutex::default(),
        }
    }

    /// See [`crate::Runtime::inspect`].
    pub async fn inspect(self: &Arc<Self>, digest: Digest, bytes: Bytes) -> Result<Inspected, Refusal> {
        self.adopt_shared(digest).await;
        // One that can't be linked was made by another version of this host.
        let found = self.load(digest).await.ok().flatten();
        let made = match found {
            Some(made) => made,
            None => {
                let _permit = permit(&self.inspecting).await?;
                self.compile(digest, bytes).await?
            }
        };
        // Whatever was there before is as good; the first one stays.
        let _ = self.slot(digest).set(made.ready);
        self.weigh(digest, made.memory_bytes);
        Ok(made.inspected)
    }

    /// The component of that digest: from memory, else from its artifact, else compiled anew. The error is
    /// for people.
    pub async fn ready(self: &Arc<Self>, digest: Digest) -> Result<Ready, String> {
        let slot = self.slot(digest);
        if let Some(ready) = slot.get() {
            return Ok(ready.clone());
        }
        let making = self.making().entry(digest).or_insert_with(|| self.begin_to_make(digest, slot)).clone();
        making.await
    }

    fn begin_to_make(self: &Arc<Self>, digest: Digest, slot: Arc<OnceCell<Ready>>) -> Making {
        let compiler = Arc::clone(self);
        let made = self.tasks.spawn(async move {
            let _over = Over(&compiler, digest);
            slot.get_or_try_init(|| compiler.make_ready(digest)).await.cloned()
        });
        async move { made.await.unwrap_or_else(|panic| Err(panic.to_string())) }.boxed().shared()
    }

    pub fn compilations(&self) -> u64 {
        self.compilations.load(Ordering::Relaxed)
    }

    async fn make_ready(self: &Arc<Self>, digest: Digest) -> Result<Ready, String> {
        self.adopt_shared(digest).await;
        let made = match self.load(digest).await.map_err(|refusal| refusal.to_string())? {
            Some(made) => made,
            None => {
                // Before there are bytes, of which there would be as many as runs.
                let _permit = permit(&self.compiling).await.map_err(|refusal| refusal.to_string())?;
                let bytes = self.components.component_bytes(digest).await?;
                self.compile(digest, bytes.into()).await.map_err(|refusal| refusal.to_string())?
            }
        };
        self.weigh(digest, made.memory_bytes);
        Ok(made.ready)
    }

    /// Takes over what another host has compiled, if this one hasn't. That it can't is no harm: then this one
    /// compiles.
    async fn adopt_shared(self: &Arc<Self>, digest: Digest) {
        if self.artifacts.contains(digest) {
            return;
        }
        let Ok(_permit) = permit(&self.sharing).await else { return };
        match self.components.artifact(digest, &self.artifacts.variant()).await {
            Ok(None) => {}
            Ok(Some(file)) => {
                let compiler = Arc::clone(self);
                let adopted = tokio::task::spawn_blocking(move || compiler.artifacts.adopt(digest, &file));
                if let Ok(Err(error)) = adopted.await {
                    tracing::warn!(%digest, %error, "a compiled component that was shared can't be kept");
                }
            }
            Err(error) => tracing::warn!(%digest, %error, "shared compiled components can't be asked for"),
        }
    }

    /// Lets other hosts have what this one has compiled.
    async fn share(self: &Arc<Self>, digest: Digest) {
        let Ok(_permit) = permit(&self.sharing).await else { return };
        let compiler = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || compiler.artifacts.read(digest)).await;
        let Ok(Some(file)) = read else { return };
        if let Err(error) = self.components.share_artifact(digest, &self.artifacts.variant(), file).await {
            tracing::warn!(%digest, %error, "a compiled component can't be shared; other hosts compile it too");
        }
    }

    /// Compiles, keeps what comes of it, and makes it ready.
    async fn compile(self: &Arc<Self>, digest: Digest, bytes: Bytes) -> Result<Made, Refusal> {
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let Compiled { inspected, code } =
            process::compile(&self.with, bytes).await.inspect_err(|refusal| {
                tracing::warn!(%digest, %refusal, "an upload wasn't compiled");
            })?;
        let compiler = Arc::clone(self);
        let keep = move || compiler.artifacts.save(digest, &inspected, &code);
        let kept = tokio::task::spawn_blocking(keep).await.map_err(io::Error::other).flatten();
        kept.map_err(|e| Refusal::Unavailable(format!("the compiled component can't be kept: {e}")))?;
        let made = self.load(digest).await?;
        let made =
            made.ok_or_else(|| Refusal::Unavailable("the compiled component can't be read back".into()))?;
        self.share(digest).await;
        Ok(made)
    }

    /// What the artifact of a component makes, if there is a good one.
    async fn load(self: &Arc<Self>, digest: Digest) -> Result<Option<Made>, Refusal> {
        let _permit = permit(&self.reading).await?;
        let compiler = Arc::clone(self);
        let load = move || -> wasmtime::Result<Option<Made>> {
            let made = compiler.artifacts.load(digest).and_then(|loaded| {
                let Some(Loaded { component, inspected, memory_bytes }) = loaded else { return Ok(None) };
                let ready = compiler.link(&component, inspected.shape)?;
                Ok(Some(Made { ready, inspected, memory_bytes }))
            });
            made.inspect_err(|_| compiler.artifacts.remove(digest))
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok(made)) => Ok(made),
            Ok(Err(e)) => Err(Refusal::NotATask(format!("the component doesn't fit the host: {e:#}"))),
            Err(panic) => Err(Refusal::NotCompiled(format!("the component can't be linked: {panic}"))),
        }
    }

    fn link(&self, component: &Component, shape: Shape) -> wasmtime::Result<Ready> {
        let pre = self.linker.instantiate_pre(component)?;
        Ok(match shape {
            Shape::Handler => Ready::Handler(TaskPre::new(pre)?),
            Shape::Command => Ready::Command(CommandPre::new(pre)?),
        })
    }

    fn slot(&self, digest: Digest) -> Arc<OnceCell<Ready>> {
        self.shelf().slot(digest)
    }

    fn weigh(&self, digest: Digest, memory_bytes: u64) {
        self.shelf().weigh(digest, memory_bytes);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<Ready>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn making(&self) -> MutexGuard<'_, HashMap<Digest, Making>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a component out of those that are being made, after a panic too.
struct Over<'a>(&'a Compiler, Digest);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.making().remove(&self.1);
    }
}

async fn permit(of: &Semaphore) -> Result<SemaphorePermit<'_>, Refusal> {
    of.acquire().await.map_err(|e| Refusal::Unavailable(e.to_string()))
}
