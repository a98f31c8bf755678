;; A command that takes all it can get, of what the first byte of its input says:
;; s  a processor, in an endless loop
;; m  memory, all of it, written to again and again
;; l  the log, for ever
;; o  output, as much as may be
;; c  the host's time: random bytes, for ever
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 65536) "all work and no play makes Jack a dull boy\n")
  (func $write (param $file i32) (param $length i32)
    (i32.store (i32.const 0) (i32.const 65536))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (local.get $file) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (local $kind i32) (local $times i32)
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $kind (i32.load8_u (i32.const 16)))
    (if (i32.eq (local.get $kind) (i32.const 115)) ;; s
      (then (loop (br 0))))
    (if (i32.eq (local.get $kind) (i32.const 109)) ;; m
      (then
        (block $full (loop $more (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))
        (loop
          (memory.fill (i32.const 131072) (i32.const 1)
            (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 131072)))
          (br 0))))
    (if (i32.eq (local.get $kind) (i32.const 108)) ;; l
      (then (loop (call $write (i32.const 2) (i32.const 43)) (br 0))))
    (if (i32.eq (local.get $kind) (i32.const 111)) ;; o
      (then
        (loop $more
          (call $write (i32.const 1) (i32.const 65536))
          (local.set $times (i32.add (local.get $times) (i32.const 1)))
          (br_if $more (i32.lt_u (local.get $times) (i32.const 16))))))
    (if (i32.eq (local.get $kind) (i32.const 99)) ;; c
      (then (loop (drop (call $random_get (i32.const 65536) (i32.const 65536))) (br 0))))))
