//! What `wit/` becomes in Rust, as the host sees it.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "innkeeper:task/task",
    imports: { default: trappable },
    exports: { default: async },
});
