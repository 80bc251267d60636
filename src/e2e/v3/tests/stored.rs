//! What is stored comes back, and nothing else does.

use super::*;
use serde_json::Value;

fn changed(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::from_str(text).unwrap();
    change(&mut value);
    value.to_string()
}

#[test]
fn both_ends_go_on_from_what_they_stored() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    for round in 0..4 {
        agree(at(10. * f64::from(round)), &mut random, &mut device, &mut agent);
        let _ = say(at(10.), &mut random, &mut device, &mut agent).unwrap();
        let _ = answer(at(10.), &mut random, &mut device, &mut agent).unwrap();
        device = DeviceEnd::load(&device.store()).unwrap();
        agent = AgentEnd::load(TOKEN, agent_key(), &agent.store()).unwrap();
        assert_eq!(say(at(10.), &mut random, &mut device, &mut agent).unwrap().skipped, 63);
        assert_eq!(answer(at(10.), &mut random, &mut device, &mut agent).unwrap().skipped, 63);
        device.handle_agent(true);
        device.handle_drained();
    }
}

#[test]
fn what_is_stored_twice_is_the_same() {
    let (device, joined, _) = enrol(&mut counting(1));
    assert_eq!(*DeviceEnd::load(&device.store()).unwrap().store(), *device.store());
    assert_eq!(*AgentEnd::load(TOKEN, agent_key(), &joined.end.store()).unwrap().store(), *joined.end.store());
    let mut open = Enrolments::new(TOKEN, agent_key());
    open.open(k(1), None);
    open.open(k(2), Some(Duration::from_secs(1_770_000_600)));
    assert_eq!(*Enrolments::load(TOKEN, agent_key(), &open.store()).unwrap().store(), *open.store());
}

#[test]
fn a_device_that_was_restarted_before_its_welcome_still_waits_for_it_and_repeats_its_third_message() {
    let mut random = counting(1);
    let (device, joined, _) = enrol(&mut random);
    let mut device = DeviceEnd::load(&device.store()).unwrap();
    let mut agent = AgentEnd::load(TOKEN, agent_key(), &joined.end.store()).unwrap();
    assert!(!device.is_admitted() && !agent.is_admitted());
    assert!(agent.repeats_enrolment(&exchange(&device.poll_enrolment().unwrap())));
    agent.admit();
    let mut agent = AgentEnd::load(TOKEN, agent_key(), &agent.store()).unwrap();
    assert!(agent.is_admitted());
    assert!(answer(at(1.), &mut random, &mut device, &mut agent).unwrap().confirmed);
    assert!(DeviceEnd::load(&device.store()).unwrap().poll_enrolment().is_none());
}

#[test]
fn what_is_damaged_or_of_a_later_version_is_refused() {
    let (device, joined, _) = enrol(&mut counting(1));
    let (device, agent) = (device.store(), joined.end.store());
    let load = |text: &str| DeviceEnd::load(text).map(drop);
    let later = changed(&device, |value| value["v"] = 2.into());
    assert_eq!(load(&later), Err(StateError::Version(2)));
    let long = format!("{}{}", *device, " ".repeat(8 * 1024));
    let mut damaged = vec![String::new(), "{}".into(), device[1..].to_owned(), agent.to_string(), long];
    for (field, wrong) in [
        ("psk", Value::from("AAAA")),
        ("psk", "+".repeat(43).into()),
        ("psk", "A".repeat(44).into()),
        ("key", Value::Null),
        ("agent", Value::from("")),
        ("third", Value::from("AAAA")),
        ("more", Value::from(1)),
    ] {
        damaged.push(changed(&device, |value| value[field] = wrong));
    }
    damaged.push(changed(&device, |value| value["sessions"]["device"] = "XYZ".into()));
    damaged.push(changed(&device, |value| value["sessions"]["sending"]["next"] = (1u64 << 60).into()));
    damaged.push(changed(&device, |value| value["sessions"]["sending"]["next"] = (-1).into()));
    damaged.push(changed(&device, |value| value["sessions"]["sending"]["sid"] = "AAAA".into()));
    damaged.push(changed(&device, |value| {
        let one = value["sessions"]["receiving"][0].clone();
        value["sessions"]["receiving"] = vec![one; RECEIVING_MAX + 1].into();
    }));
    for text in damaged {
        assert_eq!(load(&text), Err(StateError::Damaged), "{text}");
    }
    let mut open = Enrolments::new(TOKEN, agent_key());
    open.open(k(1), None);
    let load = |text: &str| Enrolments::load(TOKEN, agent_key(), text).map(drop);
    let text = open.store();
    assert_eq!(load(&changed(&text, |value| value["links"][0]["answered"] = 9.into())), Err(StateError::Damaged));
    let many = changed(&text, |value| value["links"] = vec![value["links"][0].clone(); OPEN_MAX + 1].into());
    assert_eq!(load(&many), Err(StateError::Damaged));
}
