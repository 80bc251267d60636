//! Notifications that wake devices.

use super::DefaultValue::{Described, Is};
use super::Reload::{Now, Restart};
use super::Takes::{One, Secret, Several};
use super::{Group, Setting, add, keep, put};
use crate::config::{self, value};

pub(super) static PUSH: Group = Group {
    heading: "Notifications",
    settings: &[
        Setting {
            name: "push",
            unit: "on|off",
            takes: One,
            help: "Whether devices that are away are woken by notifications",
            doc: Some("whether devices that are away are woken by [notifications](operations/push.md)"),
            default: Is("on"),
            reload: Restart(|old, new| keep(&old.push.is_on, &mut new.push.is_on)),
            set: |to, text| put(&mut to.config.push.is_on, value::switch(text)),
        },
        Setting {
            name: "push-contact",
            unit: "URL",
            takes: One,
            help: "mailto: or https: address of yours for push services; browsers need it",
            doc: Some(
                "`mailto:` or `https:` address of yours, which push services are shown; without it browsers are not woken",
            ),
            default: Described("none"),
            reload: Now(|old, new| old.push.contact != new.push.contact),
            set: |to, text| put(&mut to.config.push.contact, value::contact(text).map(Some)),
        },
        Setting {
            name: "push-text",
            unit: "TEXT",
            takes: One,
            help: "What each notification says",
            doc: None,
            default: Is("Your agent has answered"),
            reload: Now(|old, new| old.push.text != new.push.text),
            set: |to, text| put(&mut to.config.push.text, value::notification(text)),
        },
        Setting {
            name: "push-hosts",
            unit: "HOST[:PORT]",
            takes: Several,
            help: "Push service to allow, and no others; repeatable",
            doc: Some(
                "push service to allow, and no others; it may have another port than 443 and be in a private network; \
                 `*.HOST`: all public names under it; repeatable",
            ),
            default: Described("any that is public"),
            reload: Now(|old, new| old.push.hosts != new.push.hosts),
            set: |to, text| add(&mut to.config.push.hosts, value::push_host(text)),
        },
        Setting {
            name: "push-hook",
            unit: "URL",
            takes: One,
            help: "Gateway of yours to APNs, FCM and the like",
            doc: Some("[gateway](operations/push.md#the-hook) of yours to APNs, FCM and the like"),
            default: Described("none"),
            reload: Now(|old, new| old.push.hook != new.push.hook),
            set: |to, text| put(&mut to.config.push.hook, value::hook(text).map(Some)),
        },
        Setting {
            name: "push-hook-secret",
            unit: "KEY",
            takes: Secret("there is one secret of the hook; give one text"),
            help: "What requests to that gateway are signed with",
            doc: Some("what requests to that gateway are signed with, at least 16 characters"),
            default: Described("none"),
            // Put in force with each reload; nobody is told whether it differs.
            reload: Now(|_, _| false),
            set: |to, text| put(&mut to.config.push.hook_secret, config::Secret::of_hook(text).map(Some)),
        },
    ],
};
