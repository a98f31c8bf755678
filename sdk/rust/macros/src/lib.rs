//! The attribute of the `innkeeper` crate.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Makes a function the component's task: `fn NAME(input: I) -> Result<O, E>`, or without the parameter.
///
/// `I` is deserialized from the run's input, or is `innkeeper::Payload`; `O` is serialized to its output, or
/// is `innkeeper::Payload`; `E` becomes an `innkeeper::Failure`. One function in a component can have it.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    if !attribute.is_empty() {
        return error("`#[task]` takes no arguments");
    }
    match signature(&item) {
        Ok((name, has_input)) => {
            let call = if has_input {
                format!("::innkeeper::__private::with_input(input, {name})")
            } else {
                format!("::innkeeper::__private::without_input({name})")
            };
            let export = format!(
                "#[cfg(target_family = \"wasm\")]
                const _: () = {{
                    struct Task;
                    impl ::innkeeper::__private::Guest for Task {{
                        fn run(
                            input: ::innkeeper::__private::WirePayload,
                        ) -> ::core::result::Result<
                            ::innkeeper::__private::WirePayload,
                            ::innkeeper::__private::WireFailure,
                        > {{
                            {call}
                        }}
                    }}
                    ::innkeeper::__private::export!(Task with_types_in ::innkeeper::__private::bindings);
                }};"
            );
            // On other targets nothing calls the function but its tests.
            let lenient = "#[cfg_attr(not(target_family = \"wasm\"), allow(dead_code))]";
            let mut output: TokenStream = lenient.parse().unwrap_or_default();
            output.extend(item);
            match export.parse::<TokenStream>() {
                Ok(export) => output.extend(export),
                Err(_) => return error("`#[task]` can't make an export of this function's name"),
            }
            output
        }
        Err(message) => error(message),
    }
}

/// The function's name, and whether it has a parameter.
fn signature(item: &TokenStream) -> Result<(String, bool), &'static str> {
    let mut tokens = item.clone().into_iter();
    let mut before = String::new();
    for token in tokens.by_ref() {
        match &token {
            TokenTree::Ident(ident) if ident.to_string() == "fn" => break,
            other => before = other.to_string(),
        }
    }
    if before == "async" {
        return Err("a task is not async: it has its sandbox to itself and may simply wait");
    }
    let Some(TokenTree::Ident(name)) = tokens.next() else {
        return Err("`#[task]` goes before a function");
    };
    match tokens.next() {
        Some(TokenTree::Group(parameters)) if parameters.delimiter() == Delimiter::Parenthesis => {
            let inside = parameters.stream();
            if inside.clone().into_iter().any(|t| matches!(t, TokenTree::Ident(i) if i.to_string() == "self"))
            {
                return Err("a task is a function, not a method");
            }
            Ok((name.to_string(), !inside.is_empty()))
        }
        _ => Err("a task is not generic: its input has one type"),
    }
}

fn error(message: &str) -> TokenStream {
    format!("::core::compile_error!({message:?});").parse().unwrap_or_default()
}
