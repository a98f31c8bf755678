//! Expressions, held against what they promise.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn event(data: Value) -> Variables {
    Variables::new().with("data", data).with("topic", json!("orders.new"))
}

fn read(text: &str) -> Result<Expression, ExpressionError> {
    Expression::parse(text, &["data", "topic"])
}

fn matches(text: &str, data: Value) -> bool {
    read(text).unwrap().matches(&event(data), &mut 0)
}

#[test]
fn filters() {
    let order = || json!({"total": 120, "rate": 1.5, "kind": "gift", "items": [{"sku": "a"}, {"sku": "b"}]});
    for text in [
        "data.total > 100 && topic.startsWith('orders.')",
        "data.total == 120.0 && data.rate < 2",
        "data.kind in ['gift', 'loan']",
        "data.items.exists(i, i.sku == 'b')",
        "data.items.filter(i, i.sku != 'a').map(i, i.sku) == ['b']",
        "has(data.kind) && !has(data.colour)",
        "size(data.items) == 2 ? true : false",
        "data['kind'].contains('if')",
        "topic.endsWith('.new')",
    ] {
        assert!(matches(text, order()), "{text}");
    }
    for text in
        ["data.colour == 'red'", "data.total", "data.total > 'a'", "1 / 0 == 1", "data.items[7].sku == 'a'"]
    {
        assert!(!matches(text, order()), "{text}");
    }
}

#[test]
fn values_are_json() {
    let read = read("{'id': data.id, 'all': data.list.map(x, x + 1), 'none': null, 'half': 0.5}").unwrap();
    let given = read.value(&event(json!({"id": "é", "list": [1, -2]})), &mut 0);
    assert_eq!(given, Ok(json!({"id": "é", "all": [2, -1], "none": null, "half": 0.5})));
    let large = json!({"n": u64::MAX, "f": 1e300});
    assert_eq!(
        super::Expression::parse("data", &["data"]).unwrap().value(&event(large.clone()), &mut 0),
        Ok(large)
    );
}

/// Each evaluation has maps of its own, which are in an order of their own.
#[test]
fn what_is_given_is_the_same_to_the_letter_every_time() {
    let read = read("{'c': data, 'a': 1, 'b': {'z': 1, 'y': 2}, 'd': 4}").unwrap();
    let given = || read.value(&event(json!({"two": 2, "one": 1})), &mut 0).unwrap().to_string();
    let expected = r#"{"a":1,"b":{"y":2,"z":1},"c":{"one":1,"two":2},"d":4}"#;
    assert!((0..20).all(|_| given() == expected), "{}", given());
    let twice = super::Expression::parse("{1: 'a', '1': 'b'}", &[]).unwrap();
    assert!(matches!(twice.value(&Variables::new(), &mut 0), Err(EvaluationError::Failed(_))));
}

#[test]
fn mistakes_are_told() {
    let words = |text: &str| read(text).unwrap_err().to_string();
    assert!(words("data.total >").contains("not an expression in CEL"), "{}", words("data.total >"));
    assert!(words("total > 1").contains("names `total`"), "{}", words("total > 1"));
    assert!(words("data.name.matches('a+')").contains("calls `matches`"));
    assert!(words(&"a".repeat(EXPRESSION_CHARS_MAX + 1)).contains("characters"));
    assert_eq!(read(" "), Err(ExpressionError::Empty));
    assert!(Expression::parse_key("input.list.map(x, x)").unwrap_err().to_string().contains("loops"));
    assert!(Expression::parse_key("data.id").is_err());
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[test]
fn deep_ones_are_refused() {
    for (open, close) in [("(", ")"), ("[", "]"), ("size(", ")"), ("-", ""), ("!", ""), ("true ? 1 : ", "")] {
        let text = format!("{}1{}", open.repeat(900 / open.len()), close.repeat(900 / open.len()));
        if let Ok(read) = read(&text) {
            // Not too deep for it: then it can be evaluated too.
            drop(read.value(&event(Value::Null), &mut 0));
        }
    }
    let sum = vec!["1"; 500].join("+");
    drop(read(&sum).map(|read| read.value(&event(Value::Null), &mut 0)));
    let path = format!("data{}", ".a".repeat(490));
    drop(read(&path).map(|read| read.value(&event(Value::Null), &mut 0)));
}

#[test]
fn a_loop_costs_no_more_than_it_looks_at() {
    for text in [
        "data.orders.exists(o, o.items.exists(i, i.sku == 'x'))",
        "data.orders.filter(o, o.open).map(o, o.id) == []",
        "data.orders.map(o, o.id).exists(id, id == 7)",
    ] {
        assert!(read(text).is_ok(), "{text}: {:?}", read(text));
    }
    for text in [
        "data.all(a, data.all(b, a != b))",
        "data.all(a, a.all(b, a.all(c, c != b)))",
        "data.map(x, [x, x]).map(x, [x, x]) == []",
        "data.all(x, ['a', 'b'].exists(y, x == y))",
        "data.map(x, {'a': x}).all(y, y.a == 1)",
    ] {
        assert!(matches!(read(text), Err(ExpressionError::Loop { .. })), "{text}: {:?}", read(text));
    }
}

#[test]
fn what_goes_through_too_much_is_not_evaluated() {
    let list = |count: usize| json!(vec![1; count]);
    let own = read("data.all(x, x == 1)").unwrap();
    assert!(own.matches(&event(list(32_000)), &mut 0));
    let ordinary = read("data.exists(i, i > 10 && i < 20 || i == 99)").unwrap();
    assert!(ordinary.work(&event(list(32_000))) < EXPRESSION_WORK_MAX);
    let too_much = own.value(&event(list(500_000)), &mut 0);
    assert_eq!(too_much, Err(EvaluationError::TooMuch { max: EXPRESSION_WORK_MAX }));
    // Each round looks at as much as is there.
    let small = read("data.list.all(x, topic != 'a' && data.few.size() == 2)").unwrap();
    assert!(small.matches(&event(json!({"list": list(20_000), "few": [1, 2]})), &mut 0));
    let all = read("data.all(x, size(data + [x]) > 0)").unwrap();
    assert!(all.matches(&event(list(200)), &mut 0) && !all.matches(&event(list(2_000)), &mut 0));
    let inner = read("data.all(o, o.items.all(i, i == o.id))").unwrap();
    let orders = |items: usize, id: &str| {
        let order = json!({"id": id, "items": vec![id; items]});
        json!(vec![order; 100])
    };
    assert!(inner.matches(&event(orders(200, "7")), &mut 0));
    assert!(!inner.matches(&event(orders(200, &"x".repeat(2_000))), &mut 0));
}

#[test]
fn a_field_of_the_event_in_each_element_is_little() {
    let orders = |count: usize| json!({"id": "order-1", "items": vec![json!({"sku": "a"}); count]});
    let copied = read("data.items.map(i, {'sku': i.sku, 'order': data.id})").unwrap();
    let given = copied.value(&event(orders(5_000)), &mut 0).unwrap();
    assert_eq!(given[4_999], json!({"sku": "a", "order": "order-1"}));
    let nested =
        read("data.orders.map(o, o.items.map(i, {'order': o.id, 'topic': topic, 'price': o.prices[i.sku]}))");
    let order = json!({"id": 7, "items": vec![json!({"sku": "a"}); 100], "prices": {"a": 1, "b": 2}});
    let given = nested.unwrap().value(&event(json!({"orders": vec![order; 20]})), &mut 0).unwrap();
    assert_eq!(given[19][99], json!({"order": 7, "topic": "orders.new", "price": 1}));
}

#[test]
fn a_written_list_repeats_what_is_in_its_loops() {
    let written = |count: usize| format!("[{}].all(x, x.all(y, y == 1))", vec!["data"; count].join(","));
    let ones = |count: usize| event(json!(vec![1; count]));
    let [few, many] = [2, 100].map(|count| read(&written(count)).unwrap());
    assert!(
        few.matches(&ones(5_000), &mut 0)
            && many.matches(&ones(100), &mut 0)
            && !many.matches(&ones(5_000), &mut 0)
    );
    assert!(many.work(&ones(100)) > 40 * few.work(&ones(100)));
    let nested =
        |of: &str, count| format!("[[{}]].all(x, x.all(y, y.all(z, z == 1)))", vec![of; count].join(","));
    let [once, often] = [1, 80].map(|count| read(&nested("data", count)).unwrap());
    assert!(once.matches(&ones(5_000), &mut 0) && !often.matches(&ones(5_000), &mut 0));
    let sum = read(&format!("[{}].all(x, x.all(y, y == 1))", ["data"; 80].join("+"))).unwrap();
    assert!(sum.work(&ones(100)) > 20 * once.work(&ones(100)));
    assert!(read("[data.map(a, data)].all(x, x.all(y, y.all(z, z == 1)))").is_err());
    assert!(read("['or', 'x'].exists(x, topic.startsWith(x))").unwrap().matches(&ones(100_000), &mut 0));
}

#[test]
fn only_what_is_named_is_gone_through() {
    let large = json!({"id": 7, "of": {"it": [1]}, "many": vec![1; 1_000_000]});
    for text in ["data.id == 7", "data['of'].it[0] == data.of.it[0]", "has(data.of.it) && !has(data.of.that)"]
    {
        assert!(matches(text, large.clone()), "{text}");
    }
    assert!(!matches("data.many[0] == 1", large.clone()) && !matches("has(data.many)", large));
}

/// JSON in which the names that expressions use are somewhere, with so many fields in each object.
fn any_json(fields: usize) -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    plain.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-c]", inner, 0..=fields)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// What it gives, and what it does where all is there that it doesn't name.
fn narrow_and_whole(text: &str, data: &Value) -> (Option<Value>, Option<Value>) {
    let (read, variables) = (read(text).unwrap(), event(data.clone()));
    let mut whole = Context::default();
    for (name, value) in &variables.0 {
        whole.add_variable_from_value(*name, value::parts_to_cel(value, &[&[]]));
    }
    let given = read.program.execute(&whole).ok().and_then(|given| value::to_json(&given));
    (read.value(&variables, &mut 0).ok(), given)
}

proptest! {
    #[test]
    fn what_is_not_named_makes_no_difference(
        data in any_json(4),
        // What is gone through has a single field in each object: several come in any order.
        [a, b, c] in [any_json(1), any_json(1), any_json(1)],
    ) {
        for text in [
            "data.a",
            "data.a.b == 1 || data['a'].c == 'b'",
            "has(data.a.b) && !has(data.b)",
            "data.a[0]",
            "data.a[data.b]",
            "data[topic]",
            "[data.a.b, data.a]",
            "type(data.a) == type(data.b.c)",
            "size(data.a) + size(data.b)",
            "data.b in data.a ? data.c : topic",
        ] {
            let (narrow, whole) = narrow_and_whole(text, &data);
            prop_assert_eq!(narrow, whole, "{}", text);
        }
        let data = json!({"a": a, "b": b, "c": c});
        for text in [
            "data.a.all(x, x == data.b)",
            "data.a.map(x, [x.b, data.c.a])",
            "data.a.exists(a, a.b.exists(data, data == a.c))",
            "data.a.b + data.b",
        ] {
            let (narrow, whole) = narrow_and_whole(text, &data);
            prop_assert_eq!(narrow, whole, "{}", text);
        }
    }
}

#[test]
fn what_makes_much_of_its_input_goes_through_more() {
    let sum = |of: &str, count| vec![of; count].join("+");
    let work = |text: &str| read(text).unwrap().work(&event(json!(vec![1; 999])));
    // Each of a sum is copied so often: the first by all of it.
    let copies = |count: usize| count * (count + 1) / 2 + count - 1;
    let steps = 2 * 100 - 1;
    assert_eq!(work(&sum("data", 100)), 1_000 * (READ + copies(100)) + steps);
    assert_eq!(work(&format!("[{}]", vec!["data"; 100].join(","))), 1_000 * (READ + 200) + 8 + 3 * 100);
    let body = |count| work(&format!("data.all(x, {})", vec!["x == x"; count].join("&&")));
    let texts = |length| work(&format!("data.map(x, '{}')", "x".repeat(length)));
    let numbers = |count| work(&format!("data.map(x, {})", vec!["string(x)"; count].join("+")));
    assert!(numbers(50) > 50 * 50 / 2 * 1_000);
    assert!(work(&format!("size({})", vec!["string(data)"; 50].join("+"))) > 50 * 50 / 2 * 1_000);
    assert!(texts(900) > texts(1) + 1_000 * (900 / 64));
    assert!(body(100) > 20 * body(2), "{} {}", body(100), body(2));
    let many = read(&sum("data", 100)).unwrap().value(&event(json!(vec![1; 5_000])), &mut 0);
    assert!(matches!(many, Err(EvaluationError::TooMuch { .. })), "{many:?}");
}

/// The loops go on in spite of errors.
#[test]
fn errors_count_as_what_is_copied_into_them() {
    let lists = |count: usize| event(json!({"few": vec![1; 100], "many": vec![1; count], "half": 0.5}));
    for text in ["data.few.exists(x, data.many[0.5] == x)", "data.few.exists(x, data.many[data.half] == x)"] {
        let read = read(text).unwrap();
        assert!(read.work(&lists(5_000)) > 100 * 5_000 && read.work(&lists(5)) < 5_000, "{text}");
    }
    let fields = |count| format!("data.few.exists(x, data{} == x)", ".a".repeat(count));
    let [short, long] = [1, 450].map(|count| read(&fields(count)).unwrap().work(&lists(5)));
    assert!(long > 20 * short, "{short} {long}");
}

#[test]
fn a_key_goes_through_little_of_what_it_names() {
    let input = json!({
        "customer": {"id": "a", "region": "eu", "orders": vec![1; 10_000]},
        "few": [7, 8, 9],
        "many": vec![1; 10_000],
        "text": "x".repeat(20_000),
    });
    let input = Payload::json(input.to_string());
    let key = |text: &str| Expression::parse_key(text).unwrap().key(&input);
    for (text, given) in [
        ("input.customer.id", "\"a"),
        ("input['customer']['region'] + '/' + input.customer.id", "\"eu/a"),
        ("input.few[1]", "8"),
        ("size(input.few) + input.few[0]", "10"),
        ("has(input.customer.id) && !has(input.customer.name)", "true"),
        ("size(input.text)", "20000"),
    ] {
        assert_eq!(key(text).as_deref(), Some(given), "{text}");
    }
    for many in [
        "size(input)",
        "input.many[0]",
        "input == 1",
        "size(input.customer)",
        "has(input.many) ? input.customer.id : 'none'",
    ] {
        assert_eq!(key(many), None, "{many}");
    }
    let sum = |of: &str, count| format!("size({})", vec![of; count].join("+"));
    assert_eq!(key(&sum("input.few", 20)).as_deref(), Some("60"));
    assert_eq!(key(&sum("input.few", 90)), None);
    assert_eq!(key(&sum("input.text", 5)).as_deref(), Some("100000"));
    assert_eq!(key(&sum("input.text", 90)), None);
}

#[test]
fn keys() {
    let key = |input: &str| Expression::parse_key("input.customer").unwrap().key(&Payload::json(input));
    assert_eq!(key(r#"{"customer": "acme"}"#).as_deref(), Some("\"acme"));
    assert_eq!(key(r#"{"customer": 7}"#).as_deref(), Some("7"), "is another than the text");
    assert_eq!(key(r#"{"customer": "7"}"#).as_deref(), Some("\"7"));
    for none in [r#"{"customer": null}"#, r#"{"customer": {}}"#, "{}", "no json", "7"] {
        assert_eq!(key(none), None, "{none}");
    }
    let long = key(&format!(r#"{{"customer": "{}"}}"#, "x".repeat(5_000))).unwrap();
    assert_eq!((long.len(), &long[..1]), (65, "#"));
}

#[test]
fn compiled_once() {
    let compiled = Compiled::default();
    let one = compiled.get("input.a", Expression::parse_key).unwrap();
    let two = compiled.get("input.a", |_| unreachable!("it is known")).unwrap();
    assert!(Arc::ptr_eq(&one, &two));
    assert!(compiled.get("input.", Expression::parse_key).is_err());
}
