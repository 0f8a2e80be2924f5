from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("models_admin", "0002_model_kind"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="resumed_from",
            field=models.BigIntegerField(blank=True, null=True),
        ),
    ]
