//! `strftime_now` of chat templates: dates in UTC, from a pinned clock.

/// Formats `seconds` since 1970 as Python's `strftime` would in UTC and the C locale.
///
/// Returns the offending directive if the format asks for one that is not known.
pub(super) fn strftime(format: &str, seconds: i64) -> Result<String, String> {
    const DAYS: [&str; 7] =
        ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let days = seconds.div_euclid(86_400);
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = civil(days);
    let day_name = DAYS[days.rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let hour_12 = (hour + 11) % 12 + 1;
    let day_of_year = days - days_of_year_start(year) + 1;

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        // glibc's flag for "no leading zero", which templates use in `%-d`.
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        let number = |value: i64, width: usize| match bare {
            true => value.to_string(),
            false => format!("{value:0width$}"),
        };
        out += &match directive {
            Some('Y') => year.to_string(),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('e') if bare => day.to_string(),
            Some('e') => format!("{day:2}"),
            Some('j') => number(day_of_year, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(hour_12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('p') => String::from(if hour < 12 { "AM" } else { "PM" }),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            other => return Err(other.map_or_else(|| "%".into(), |c| format!("%{c}"))),
        };
    }
    Ok(out)
}

/// Year, month (1-12) and day (1-31) of a day counted from 1970-01-01, in the Gregorian calendar
/// (H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day, counted from 1970-01-01, on which `year` begins.
fn days_of_year_start(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_equal_those_of_python() {
        // datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S %I%p %a %A %b %B %j %y")
        for (seconds, want) in [
            (0, "1970-01-01 00:00:00 12AM Thu Thursday Jan January 001 70"),
            (951_782_399, "2000-02-28 23:59:59 11PM Mon Monday Feb February 059 00"),
            (951_782_400, "2000-02-29 00:00:00 12AM Tue Tuesday Feb February 060 00"),
            (1_735_689_599, "2024-12-31 23:59:59 11PM Tue Tuesday Dec December 366 24"),
            (4_107_542_400, "2100-03-01 00:00:00 12AM Mon Monday Mar March 060 00"),
            (-1, "1969-12-31 23:59:59 11PM Wed Wednesday Dec December 365 69"),
        ] {
            let got = strftime("%Y-%m-%d %H:%M:%S %I%p %a %A %b %B %j %y", seconds);
            assert_eq!(got.as_deref(), Ok(want));
        }
        assert_eq!(strftime("%-d %b, %e %-e %%", 1_709_251_200).as_deref(), Ok("1 Mar,  1 1 %"));
        assert_eq!(strftime("%Q", 0), Err("%Q".into()));
        assert_eq!(strftime("100%", 0), Err("%".into()));
    }
}
