//! What is open, and what needs the admin key.

use super::*;
use crate::route::Route;

#[test]
fn calls_that_need_the_admin_key_are_nothing_without_it() {
    let no_key = RequestPolicy::new(RequestPolicyOptions { admin_key: "", ..options() });
    for (valid, _) in calls().into_iter().filter(|(request, _)| request.contains(KEY)) {
        for wrong in [
            "",
            "X-Admin-Key: my-secre\r\n",
            "X-Admin-Key: my-secret2\r\n",
            "X-Admin-Key:\r\n",
            "Authorization: Bearer wrong\r\n",
            "Authorization: my-secret\r\n",
            "Authorization: Basic my-secret\r\n",
            // The field of its own decides where both are there.
            "X-Admin-Key: wrong\r\nAuthorization: Bearer my-secret\r\n",
        ] {
            let text = response(&policy(), &valid.replace(KEY, wrong));
            assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{wrong}: {text}");
            assert!(text.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{text}");
            assert!(text.contains(r#"{"error":{"code":"UNAUTHORIZED","message":""#), "{text}");
        }
        for right in ["authorization: bearer my-secret\r\n", "Authorization: Bearer  my-secret \r\n"] {
            let valid = valid.replace(KEY, right);
            assert!(matches!(action(&policy(), &valid), Action::Call(_)), "{valid}");
        }
        for empty in ["", "X-Admin-Key:\r\n", "Authorization: Bearer \r\n", KEY] {
            let text = response(&no_key, &valid.replace(KEY, empty));
            assert!(text.starts_with("HTTP/1.1 401 "), "an empty key let {empty:?} in: {text}");
        }
    }
}

/// A path of each resource.
const PATHS: [&str; 24] = [
    "/",
    "/ws",
    "/health",
    "/livez",
    "/readyz",
    "/phone/qr.js",
    "/api/v1/openapi.json",
    "/api/v1/register",
    "/api/v1/pair",
    "/api/v1/pair/oc_pair_0123",
    "/api/v1/tokens",
    "/api/v1/tokens/00ff00ff00ff00ff",
    "/api/v1/tokens/00ff00ff00ff00ff/usage",
    "/api/v1/tokens/00ff00ff00ff00ff/devices",
    "/api/v1/tokens/00ff00ff00ff00ff/devices/0000000000009f2c",
    "/api/v1/tokens/sweep",
    "/api/v1/mail",
    "/api/v1/tokens/0123456789abcdef/mail",
    "/api/v1/tokens/0123456789abcdef/mail/agent",
    "/api/v1/log-level",
    "/api/v1/sessions",
    "/api/v1/usage",
    "/api/v1/drain",
    "/api/v1/backup",
];

/// The methods of a resource that need no key. A new resource belongs here, and into [`PATHS`].
fn open_methods(route: Route) -> &'static [&'static str] {
    match route {
        Route::Root | Route::Health | Route::Live | Route::Ready | Route::OpenApi | Route::Phone(_) => &["GET", "HEAD"],
        Route::PairToken(_) => &["GET", "HEAD"],
        Route::WebSocket => &["GET"],
        Route::Register => &["POST"],
        Route::Pair | Route::Tokens | Route::Token(_) | Route::TokenUsage(_) | Route::Sessions | Route::Usage => &[],
        Route::Devices(_) | Route::Device(..) | Route::Mail | Route::TokenMail(_) | Route::TokenMailOf(..) => &[],
        Route::LogLevel | Route::Drain | Route::Backup | Route::Sweep => &[],
    }
}

/// The status of what is answered without control; 200 for what it passes on.
fn status(policy: &RequestPolicy, request: &str) -> u16 {
    match parse(policy, request.as_bytes()) {
        Ok(Parsed::Request { action: Action::Respond(reply) | Action::WrongKey(reply), .. }) => {
            std::str::from_utf8(&reply.head[9..12]).unwrap().parse().unwrap()
        }
        Ok(Parsed::Request { .. }) => 200,
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn each_method_of_each_resource_is_open_by_name_or_needs_the_admin_key() {
    let policy = policy();
    for path in PATHS {
        let route = Route::of(path).unwrap();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get"] {
            let line = format!("{method} {path}");
            let with_key = |key: &str| match line.as_str() {
                "GET /ws" => status(&policy, &format!("{UPGRADE}{key}\r\n")),
                // Without the key, nobody learns that neither this query nor this body can be read.
                _ => status(&policy, &request(&format!("{line}?limit=0"), key, "no JSON")),
            };
            let statuses = [with_key(""), with_key("X-Admin-Key: wrong\r\n"), with_key(KEY)];
            let right = match (route.takes(method), open_methods(route).contains(&method)) {
                (true, true) => statuses == [200; 3],
                (true, false) => statuses == [401, 401, 200] || statuses == [401, 401, 400],
                (false, is_open) => statuses == [405; 3] && !is_open,
            };
            assert!(right, "{line}: {statuses:?}");
        }
    }
}
