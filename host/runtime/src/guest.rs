//! A guest's own state in its store: what it may use, what it has used. Fresh for every attempt.

use crate::Runtime;
use crate::capability::filesystem;
use crate::capability::http::Hooks;
use crate::log::{Log, LogStream};
use crate::mask::Mask;
use crate::memory::MemoryLimiter;
use crate::output::Output;
use crate::scratch::Scratch;
use crate::stream::GuestStream;
use bytes::Bytes;
use innkeeper_domain::component::Shape;
use innkeeper_domain::limits::{HANDLES_MAX, HTTP_FIELDS_BYTES_MAX, RANDOM_BYTES_MAX};
use innkeeper_domain::run::LogLevel;
use innkeeper_domain::time::Now;
use innkeeper_engine::executor::{AttemptPort, Invocation};
use std::sync::Arc;
use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

pub(crate) struct Guest {
    pub invocation: Invocation,
    pub port: Arc<dyn AttemptPort>,
    pub log: Log,
    pub output: Output,
    pub limiter: MemoryLimiter,
    /// When the guest's time is over.
    pub ends_at: Instant,
    pub config: Option<WasiConfigVariables>,
    pub table: ResourceTable,
    /// What the time is.
    pub clock: Now,
    /// Its files, if its task has any.
    pub scratch: Option<Scratch>,
    shape: Shape,
    /// Made when the guest first asks for anything of WASI: many never do.
    wasi: Option<Box<Wasi>>,
    http: WasiHttpCtx,
    hooks: Hooks,
}

struct Wasi {
    context: WasiCtx,
    streams: [LogStream; 2],
}

impl Guest {
    pub fn new(
        runtime: &Runtime,
        invocation: Invocation,
        port: Arc<dyn AttemptPort>,
        shape: Shape,
        hooks: Hooks,
        log: Log,
        ends_at: Instant,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HTTP_FIELDS_BYTES_MAX);
        let memory = invocation.spec.memory.min(invocation.claimed.bounds.memory.unwrap_or(u64::MAX));
        let mut guest = Self {
            limiter: MemoryLimiter::new(memory),
            output: Output::default(),
            invocation,
            port,
            log,
            ends_at,
            config: None,
            table,
            clock: Arc::clone(&runtime.now),
            scratch: None,
            shape,
            wasi: None,
            http,
            hooks,
        };
        guest.scratch = filesystem::scratch(&guest);
        guest
    }

    /// A handler's state without what belongs to an attempt: for the bench's floor.
    pub fn bare(runtime: &Runtime, invocation: Invocation, port: Arc<dyn AttemptPort>) -> Self {
        let log = Log::new(Arc::clone(&port), Mask::new(&invocation.secrets), None);
        let hooks = Hooks::new(Arc::clone(&runtime.http), &invocation, log.clone());
        Self::new(runtime, invocation, port, Shape::Handler, hooks, log, Instant::now())
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Ends the lines that the guest has begun.
    pub fn end_lines(&self) {
        if let Some(wasi) = &self.wasi {
            wasi.streams.iter().for_each(LogStream::finish);
        }
    }

    /// Ends the lines that the guest has begun, and tells what was dropped. To be called once.
    pub fn finish_log(&self) {
        self.end_lines();
        for words in self.scratch.iter().flat_map(Scratch::refusals) {
            self.log.note(LogLevel::Warn, words);
        }
        self.log.finish();
    }

    /// The task's config and its secrets, for `wasi:config/store`.
    pub fn config(&mut self) -> &WasiConfigVariables {
        let shown = shown(&self.invocation);
        self.config.get_or_insert_with(|| shown.map(|(k, v)| (k.clone(), v.into())).collect())
    }

    fn make_wasi(&mut self) -> Box<Wasi> {
        let (stdout, stderr) = (LogStream::new(self.log.clone()), LogStream::new(self.log.clone()));
        let mut builder = WasiCtxBuilder::new();
        builder.max_random_size(RANDOM_BYTES_MAX).stderr(GuestStream(stderr.clone()));
        match self.shape {
            Shape::Handler => {
                builder.stdout(GuestStream(stdout.clone()));
            }
            Shape::Command => {
                let shown: Vec<_> = shown(&self.invocation).collect();
                builder
                    .arg(self.invocation.claimed.task.as_str())
                    .args(&self.invocation.spec.arguments)
                    .envs(&shown);
                let input = std::mem::take(&mut self.invocation.claimed.input.bytes);
                builder
                    .stdin(MemoryInputPipe::new(Bytes::from(input)))
                    .stdout(GuestStream(self.output.clone()));
            }
        }
        // Whatever makes sockets is denied before; see `capability::sockets`.
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        Box::new(Wasi { context: builder.build(), streams: [stdout, stderr] })
    }
}

/// What a guest is shown as its config: the task's, and the secrets that the task names.
fn shown(invocation: &Invocation) -> impl Iterator<Item = (&String, &str)> {
    let config = invocation.spec.config.iter().map(|(key, value)| (key, value.as_str()));
    config.chain(invocation.secrets.iter().map(|(key, secret)| (key, secret.expose())))
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            self.wasi = Some(self.make_wasi());
        }
        match &mut self.wasi {
            Some(wasi) => WasiCtxView { ctx: &mut wasi.context, table: &mut self.table },
            None => unreachable!("made above"),
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}
