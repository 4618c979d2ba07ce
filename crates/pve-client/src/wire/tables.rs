//! The tables of which the types of answers are made.

/// Makes the type of an answer of a table of its keys: the struct, its reader and its writer.
///
/// `required` keys make the entry unreadable if they are absent or odd; `optional` ones become `None`; `slots` are
/// numbered keys. Every type has a field `odd` besides: a `None` of a key in it is not the same as an absent key.
macro_rules! answer {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(required { $($(#[$rm:meta])* $r:ident : $rt:ty = $rk:literal,)* })?
            $(optional { $($(#[$om:meta])* $o:ident : $ot:ty = $ok:literal,)* })?
            $(slots { $($(#[$sm:meta])* $s:ident : $st:ty => $sv:ty,)* })?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($($(#[$rm])* pub $r: $rt,)*)?
            $($($(#[$om])* pub $o: Option<$ot>,)*)?
            $($($(#[$sm])* pub $s: std::collections::BTreeMap<$st, $sv>,)*)?
            /// Keys whose values are there and were not understood, in whole or in part.
            pub odd: Vec<String>,
        }

        impl $crate::wire::Object for $name {
            fn knows(key: &str) -> bool {
                false $($(|| key == $rk)*)? $($(|| key == $ok)*)? $($(|| <$st as $crate::wire::Slot>::of(key).is_some())*)?
            }

            fn read_object(
                object: &serde_json::Map<String, serde_json::Value>,
                reader: &mut $crate::wire::Reader,
            ) -> Result<Self, $crate::wire::Mismatch> {
                let before = reader.mark();
                $($(let $r = reader.required(object, $rk)?;)*)?
                $($(let $o = reader.optional(object, $ok);)*)?
                $($(let $s = reader.slots::<$st, _>(object);)*)?
                let odd = reader.keys_since(before);
                Ok(Self { $($($r,)*)? $($($o,)*)? $($($s,)*)? odd })
            }

            fn write_object(&self) -> serde_json::Map<String, serde_json::Value> {
                let mut object = serde_json::Map::new();
                $($(object.insert($rk.to_owned(), $crate::wire::Wire::write(&self.$r));)*)?
                $($(
                    if let Some(value) = &self.$o {
                        object.insert($ok.to_owned(), $crate::wire::Wire::write(value));
                    }
                )*)?
                $($(
                    for (slot, value) in &self.$s {
                        object.insert(slot.to_string(), $crate::wire::Wire::write(value));
                    }
                )*)?
                object
            }
        }

        impl $crate::wire::Wire for $name {
            fn read(
                value: &serde_json::Value,
                reader: &mut $crate::wire::Reader,
            ) -> Result<Self, $crate::wire::Mismatch> {
                $crate::wire::read_whole(value, reader)
            }

            fn write(&self) -> serde_json::Value {
                serde_json::Value::Object($crate::wire::Object::write_object(self))
            }
        }
    };
}

/// Makes an enum of the rows of a list whose key `type` tells what they are. A type that this version does not know is
/// kept as it came.
macro_rules! rows_by_type {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$vm:meta])* $v:ident($vt:ty) = $tag:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $($(#[$vm])* $v($vt),)*
            /// A row of a type that this version does not know, as it came.
            Other(serde_json::Map<String, serde_json::Value>),
        }

        impl $crate::wire::Wire for $name {
            fn read(
                value: &serde_json::Value,
                reader: &mut $crate::wire::Reader,
            ) -> Result<Self, $crate::wire::Mismatch> {
                let object = value.as_object().ok_or_else(|| $crate::wire::Mismatch::new("an object"))?;
                let kind: String = reader.required(object, "type")?;
                match kind.as_str() {
                    $($tag => {
                        let row = <$vt as $crate::wire::Object>::read_object(object, reader)?;
                        reader.note_unread(object, |key| key == "type" || <$vt as $crate::wire::Object>::knows(key));
                        Ok(Self::$v(row))
                    })*
                    _ => Ok(Self::Other(object.clone())),
                }
            }

            fn write(&self) -> serde_json::Value {
                let (kind, mut object) = match self {
                    $(Self::$v(row) => ($tag, $crate::wire::Object::write_object(row)),)*
                    Self::Other(object) => return serde_json::Value::Object(object.clone()),
                };
                object.insert("type".to_owned(), serde_json::Value::from(kind));
                serde_json::Value::Object(object)
            }
        }
    };
}

pub(crate) use {answer, rows_by_type};
