;; A handler that gives its input back.
(module
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get 2) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get 2))))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  ;; content type (pointer, length), bytes (pointer, length) -> where the result is
  (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 24) (local.get 0))
    (i32.store (i32.const 28) (local.get 1))
    (i32.store (i32.const 32) (local.get 2))
    (i32.store (i32.const 36) (local.get 3))
    (i32.const 16)))
