//! From uploaded bytes to a component that is ready to run: inspected once, compiled once, pre-linked and
//! kept by digest.

use crate::ComponentSource;
use crate::admission::{self, Admitted};
use crate::artifact::Artifacts;
use crate::bindings::TaskPre;
use crate::guest::Guest;
use innkeeper_domain::component::{Digest, Inspected, Refusal, Shape};
use innkeeper_domain::limits::{COMPILATIONS_MAX, COMPILE_TIME_MAX, COMPONENTS_READY_MAX};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2::bindings::CommandPre;

/// A component that only needs to be instantiated.
#[derive(Clone)]
pub(crate) enum Ready {
    Handler(TaskPre<Guest>),
    Command(CommandPre<Guest>),
}

/// Where a ready component came from.
enum Made {
    Compiled,
    /// From an artifact that was there.
    Found,
}

/// Makes components ready.
pub(crate) struct Compiler {
    engine: Engine,
    linker: Linker<Guest>,
    artifacts: Artifacts,
    components: Arc<dyn ComponentSource>,
    permits: Arc<Semaphore>,
    compilations: AtomicU64,
    ready: Mutex<Shelf>,
}

/// Components that are ready, or on their way; the longest unused makes room.
#[derive(Default)]
struct Shelf {
    slots: HashMap<Digest, (u64, Arc<OnceCell<Ready>>)>,
    uses: u64,
}

impl Compiler {
    pub fn new(
        engine: Engine,
        linker: Linker<Guest>,
        artifacts: Artifacts,
        components: Arc<dyn ComponentSource>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(COMPILATIONS_MAX));
        Self {
            engine,
            linker,
            artifacts,
            components,
            permits,
            compilations: AtomicU64::new(0),
            ready: Mutex::default(),
        }
    }

    /// See [`crate::Runtime::inspect`].
    pub async fn inspect(self: &Arc<Self>, digest: Digest, bytes: Vec<u8>) -> Result<Inspected, Refusal> {
        self.adopt_shared(digest).await;
        let (inspected, ready) = self.compile(digest, bytes).await?;
        // Whatever was there before is as good; the first one stays.
        let _ = self.slot(digest).set(ready);
        Ok(inspected)
    }

    /// The component of that digest: from memory, else from its artifact, else compiled anew. The error is
    /// for people.
    pub async fn ready(self: &Arc<Self>, digest: Digest) -> Result<Ready, String> {
        let slot = self.slot(digest);
        if let Some(ready) = slot.get() {
            return Ok(ready.clone());
        }
        slot.get_or_try_init(|| self.make_ready(digest)).await.cloned()
    }

    pub fn compilations(&self) -> u64 {
        self.compilations.load(Ordering::Relaxed)
    }

    async fn make_ready(self: &Arc<Self>, digest: Digest) -> Result<Ready, String> {
        self.adopt_shared(digest).await;
        let compiler = Arc::clone(self);
        let loaded = tokio::task::spawn_blocking(move || compiler.artifacts.load(digest));
        if let Some((component, shape)) = loaded.await.map_err(|e| e.to_string())? {
            return self.link(&component, shape).map_err(|e| format!("{e:#}"));
        }
        let bytes = self.components.component_bytes(digest).await?;
        self.compile(digest, bytes).await.map(|(_, ready)| ready).map_err(|refusal| refusal.to_string())
    }

    /// Takes over what another host has compiled, if this one hasn't. That it can't is no harm: then this one
    /// compiles.
    async fn adopt_shared(self: &Arc<Self>, digest: Digest) {
        if self.artifacts.contains(digest) {
            return;
        }
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
        let compiler = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || compiler.artifacts.read(digest)).await;
        let Ok(Some(file)) = read else { return };
        if let Err(error) = self.components.share_artifact(digest, &self.artifacts.variant(), file).await {
            tracing::warn!(%digest, %error, "a compiled component can't be shared; other hosts compile it too");
        }
    }

    /// Inspects and compiles on a thread of its own. One that takes too long is given up; its thread goes
    /// on to its end, and the next compilation waits for it.
    async fn compile(
        self: &Arc<Self>,
        digest: Digest,
        bytes: Vec<u8>,
    ) -> Result<(Inspected, Ready), Refusal> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|e| Refusal::Unavailable(e.to_string()))?;
        let compiler = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            compiler.compile_blocking(digest, &bytes)
        });
        match tokio::time::timeout(COMPILE_TIME_MAX, work).await {
            Ok(Ok(Ok((inspected, ready, Made::Compiled)))) => {
                self.share(digest).await;
                Ok((inspected, ready))
            }
            Ok(Ok(Ok((inspected, ready, Made::Found)))) => Ok((inspected, ready)),
            Ok(Ok(Err(refusal))) => Err(refusal),
            Ok(Err(panic)) => {
                Err(Refusal::NotCompiled(format!("the compiler failed on this component: {panic}")))
            }
            Err(_) => Err(Refusal::NotCompiled(format!("compiling took longer than {COMPILE_TIME_MAX:?}"))),
        }
    }

    fn compile_blocking(&self, digest: Digest, bytes: &[u8]) -> Result<(Inspected, Ready, Made), Refusal> {
        let Admitted { component, inspected } = admission::admit(bytes)?;
        if let Some((component, shape)) = self.artifacts.load(digest)
            && let Ok(ready) = self.link(&component, shape)
        {
            return Ok((inspected, ready, Made::Found));
        }
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let code = self.engine.precompile_component(&component);
        let code = code.map_err(|e| Refusal::NotCompiled(format!("the component is not valid: {e:#}")))?;
        let saved = self.artifacts.save(digest, inspected.shape, &code);
        saved.map_err(|e| Refusal::Unavailable(format!("the compiled component can't be kept: {e}")))?;
        let loaded = self.artifacts.load(digest).map(|(component, _)| component);
        let component =
            loaded.ok_or_else(|| Refusal::Unavailable("the compiled component can't be read back".into()))?;
        let ready = self.link(&component, inspected.shape);
        let ready =
            ready.map_err(|e| Refusal::NotATask(format!("the component doesn't fit the host: {e:#}")))?;
        Ok((inspected, ready, Made::Compiled))
    }

    fn link(&self, component: &Component, shape: Shape) -> wasmtime::Result<Ready> {
        let pre = self.linker.instantiate_pre(component)?;
        Ok(match shape {
            Shape::Handler => Ready::Handler(TaskPre::new(pre)?),
            Shape::Command => Ready::Command(CommandPre::new(pre)?),
        })
    }

    fn slot(&self, digest: Digest) -> Arc<OnceCell<Ready>> {
        let mut shelf = self.shelf();
        shelf.uses += 1;
        let uses = shelf.uses;
        if let Some((last_use, slot)) = shelf.slots.get_mut(&digest) {
            *last_use = uses;
            return Arc::clone(slot);
        }
        if shelf.slots.len() >= COMPONENTS_READY_MAX {
            let oldest =
                shelf.slots.iter().min_by_key(|(_, (last_use, _))| *last_use).map(|(digest, _)| *digest);
            oldest.map(|digest| shelf.slots.remove(&digest));
        }
        let slot = Arc::new(OnceCell::new());
        shelf.slots.insert(digest, (uses, Arc::clone(&slot)));
        slot
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
